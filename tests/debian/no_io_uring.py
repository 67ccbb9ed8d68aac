#!/usr/bin/env python3
"""no_io_uring.py COMMAND...: runs it without io_uring, as containers do: a
seccomp filter answers EPERM to its three system calls. Needs root."""

import ctypes
import os
import struct
import sys

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, EPERM = 0x7fff0000, 0x00050001
CALLS = (425, 426, 427)         # io_uring_setup, _enter, _register


def program():
    code = struct.pack("HBBI", LOAD, 0, 0, 0)           # the call's number
    for i, number in enumerate(CALLS):
        code += struct.pack("HBBI", JUMP_EQUAL, len(CALLS) - i, 0, number)
    code += struct.pack("HBBI", RETURN, 0, 0, ALLOW)
    return code + struct.pack("HBBI", RETURN, 0, 0, EPERM)


def main():
    code = ctypes.create_string_buffer(program(), len(program()))
    head = struct.pack("HxxxxxxP", len(program()) // 8,
                       ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER,
                  ctypes.create_string_buffer(head, len(head)), 0, 0) != 0:
        sys.exit("seccomp: %s" % os.strerror(ctypes.get_errno()))
    os.execvp(sys.argv[1], sys.argv[1:])


main()
