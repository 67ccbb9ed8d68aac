#!/usr/bin/env python3
"""Makes tests/golden/chat/cases.jsonl with the reference (Jinja2).

Usage: chat_golden.py DIRECTORY   (tests/golden/chat)

A case is one line: {"name", "template" (text) or "file", "messages", "tools",
"kwargs", "bos", "eos", and "want": the text, or "error": what kind}.
The small templates, each about one rule, are in chat_snippets.txt; those in
chat_broken.txt are not accepted, and must not be.
"""

import json
import os
import sys

from chat_ref import render

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "get the weather in a town",
        "parameters": {"type": "object", "properties": {
            "town": {"type": "string", "description": "\"where\" & <when>"},
            "unit": {"type": "string", "enum": ["c", "f"]},
            "days": {"type": "array", "items": {"type": "integer"}},
            "limit": {"type": "integer", "maximum": 18446744073709551615}},
            "required": ["town"]}}},
    {"type": "function", "function": {
        "name": "later", "parameters": {"type": "object", "properties": {
            "wait": {"type": "number", "minimum": 0.5, "default": 1e22}}}}},
]

CHATS = {
    "one": [{"role": "user", "content": "Hello!"}],
    "system": [
        {"role": "system", "content": "  Be brief.\n"},
        {"role": "user", "content": "Größe? 你好 \U0001f600"}],
    "turns": [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "first\n\nline "},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"},
        {"role": "user", "content": " <|im_end|> <|eot_id|> 'quoted' \"text\""},
        {"role": "assistant", "content": "ok\u00a0"},
        {"role": "user", "content": "\tlast\u3000"}],
    "calls": [
        {"role": "user", "content": "weather in Köln?"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "abcdefghi", "type": "function", "function": {
                "name": "get_weather",
                "arguments": {"town": "Köln", "days": [1, 2], "x": None}}}]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "12.5"},
        {"role": "assistant", "content": "It is 12.5 degrees."},
        {"role": "user", "content": "thanks"}],
    "wrong order": [
        {"role": "assistant", "content": "I begin"},
        {"role": "user", "content": "no"}],
}

def lines(name):
    """The templates, one a line, of a file beside this one."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    with open(path, encoding="utf-8") as f:
        return f.read().strip().split("\n")


def cases(directory):
    chat = CHATS["turns"]
    for i, text in enumerate(lines("chat_snippets.txt")):
        yield {"name": "snippet %d" % i,
               "template": text.replace("\\n  ", "\n  ").replace(
                   "%}\\n", "%}\n").replace("}}\\n", "}}\n").replace(
                   "\\n{", "\n{"),
               "messages": chat}
    for i, text in enumerate(lines("chat_broken.txt")):
        yield {"name": "broken %d" % i, "template": text, "messages": chat,
               "error": "compile"}
    for name in sorted(os.listdir(os.path.join(directory, "templates"))):
        for chat in CHATS:
            for tools in (None, TOOLS):
                for kwargs in (None, {"enable_thinking": False,
                                      "in_user": False}):
                    yield {"name": "%s, %s%s%s" % (
                               name, chat, tools and ", tools" or "",
                               kwargs and ", kwargs" or ""),
                           "file": name, "messages": CHATS[chat],
                           "tools": tools, "kwargs": kwargs,
                           "bos": "<bos>", "eos": "<eos>"}


def expect(case, directory):
    if "error" in case:
        return
    text = case.get("template")
    if text is None:
        with open(os.path.join(directory, "templates", case["file"])) as f:
            text = f.read()
    try:
        case["want"] = render(text, case["messages"], case.get("tools"),
                              case.get("kwargs"), case.get("bos"),
                              case.get("eos"))
    except Exception as e:
        case["error"] = "raised" if type(e).__name__ == "TemplateError" \
            else "run"
        if case["error"] == "raised":
            case["want"] = str(e)


def main():
    directory = sys.argv[1]
    with open(os.path.join(directory, "cases.jsonl"), "w") as out:
        for case in cases(directory):
            expect(case, directory)
            case = {k: v for k, v in case.items() if v is not None}
            out.write(json.dumps(case, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
