"""The reference for chat templates: Jinja2, set up as transformers does it.

Used by chat_diff.py and chat_golden.py. Needs the Python package Jinja2.
"""

import datetime
import json

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2025, 1, 1)


class Generation(Extension):
    """{% generation %} marks what the model wrote; here it only renders."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"],
                                       drop_needle=True)
        call = self.call_method("_body")
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None,
           sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent,
                      separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise TemplateError(message)


ENV = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True,
    extensions=[Generation, loopcontrols])
ENV.filters["tojson"] = tojson
ENV.globals["raise_exception"] = raise_exception
ENV.globals["strftime_now"] = lambda f: NOW.strftime(f)


def render(template, messages, tools=None, kwargs=None, bos=None, eos=None,
           add_generation_prompt=True):
    """Returns the text; raises what Jinja raises."""
    names = dict(kwargs or {})
    if bos is not None:
        names["bos_token"] = bos
    if eos is not None:
        names["eos_token"] = eos
    return ENV.from_string(template).render(
        messages=messages, tools=tools, documents=None,
        add_generation_prompt=add_generation_prompt, **names)
