#!/usr/bin/env python3
"""Makes tests/golden/chat/cases.jsonl with the reference (Jinja2).

Usage: chat_golden.py DIRECTORY   (tests/golden/chat)

A case is one line: {"name", "template" (text) or "file", "messages", "tools",
"kwargs", "bos", "eos", and "want": the text, or "error": what kind}.
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

# Small templates, each about one rule.
SNIPPETS = r'''
a  {% if true %} b {% endif %}  c
a\n  {% if true %}\n  b\n  {% endif %}\n  c
a\n  {%+ if true %}\n  b\n  {%+ endif %}\n  c
a\n  {%- if true -%}\n  b\n  {%- endif -%}\n  c
a\n  {{- 1 -}}\n  b
a {% if true +%}\nb{% endif %}
a\n  {# comment #}\nb\n  {#- comment -#}\n c {# x #} d
{% raw %}{{ x }}{% endraw %}|{%- raw -%}  {% y %}  {%- endraw %}\nz
x\n\n{{ 1 }}\n\n
{{ "a" "b" 'c' }}
{{ "tab\tnl\nq\"b\\u\u00e9\x41\101\d" }}
{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }}
{{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 2 ** -1 }} {{ 10 / 4 }} {{ 1e3 }} {{ 1.5e-7 }}
{{ 1.0 }} {{ 0.1 + 0.2 }} {{ 1e16 }} {{ 123456789.125 }} {{ 1e22 }} {{ 100000.0 * 10 }}
{{ 1_000 }} {{ 3 ~ 4 ~ none ~ true }} {{ "a" ~ 1 + 2 }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 3 > 2 == 2 }} {{ 1 == 1.0 }} {{ true == 1 }}
{{ not true or true and not false }} {{ not 1 == 2 }} {{ 1 if false }} {{ (1 if false) is defined }}
{{ 1 if true else 2 }} {{ 1 if false else 2 if false else 3 }} {{ "x" if false else none }}
{{ x.y if x is defined else "no" }} {{ undefined_thing }}|{{ undefined_thing is undefined }}
{{ none or "x" }} {{ 0 and 1 }} {{ "" or [] }} {{ [] and 1 }}
{{ "b" in "abc" }} {{ "b" not in ["a"] }} {{ "k" in {"k": 1} }} {{ 1 in (1, 2) }}
{{ [1, 2.0, "x'y", none, true, [1], (1,), (), {"a": "b"}] }}
{{ ["a\"b", "a'b", "a'\"b", "\n\t\\"] }} {{ {1: 2, "x": {}} }}
{{ "hello"[1] }}{{ "hello"[-1] }}{{ "hello"[1:3] }}{{ "hello"[:-1] }}{{ "hello"[::-1] }}{{ "hello"[::2] }}
{{ [1,2,3][1:] }}{{ [1,2,3][-2:] }}{{ [1,2,3][::-1] }}{{ [1,2,3][5:] }}{{ [1,2,3][2:0:-1] }}{{ (1,2,3)[:2] }}
{{ "häß€😀"|length }}{{ "häß€😀"[-1] }}{{ "häß€😀"[1:3] }}{{ "häß"|reverse }}
{% for x in [1,2,3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }} {% endfor %}
{% for x in [1,2,3] %}{{ loop.previtem }}-{{ x }}-{{ loop.nextitem }};{% endfor %}
{% for x in [] %}a{% else %}empty{% endfor %}{% for x in [1] %}a{% else %}empty{% endfor %}
{% for x in range(10) if x % 2 %}{{ x }}{{ loop.length }}{% endfor %}{% for x in [1] if false %}a{% else %}none{% endfor %}
{% for k, v in {"a": 1, "b": 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for k in {"a": 1} %}{{ k }}{% endfor %}
{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in [1,2] %}{% for y in [3,4] %}{{ x }}{{ y }}{{ loop.index }}{% endfor %}{{ loop.index }} {% endfor %}
{% set x = 1 %}{% for i in [1,2] %}{{ x }}{% set x = x + 10 %}{{ x }};{% endfor %}{{ x }}
{% set ns = namespace(n=0, s="") %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }}{{ ns.s }}
{% set a, b = 1, "x" %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}{% set (c, d) = [3, 4] %}{{ c }}{{ d }}
{% if false %}{% set x = 1 %}{% endif %}{{ x is defined }}{% if true %}{% set y = 1 %}{% endif %}{{ y }}
{% set x %}  block {{ 1 + 1 }}{% endset %}[{{ x }}]{% set y | upper | trim %} abc {% endset %}[{{ y }}]
{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }};{% endmacro %}{{ m(1) }}{{ m(1, 5) }}{{ m(1, c=7) }}{{ m(b=1, a=0) }}{{ m() }}
{% macro fact(n) %}{% if n < 2 %}1{% else %}{{ n * (fact(n - 1) | int) }}{% endif %}{% endmacro %}{{ fact(10) }}
{% set g = 5 %}{% macro m() %}{{ g }}{% set g = 6 %}{{ g }}{% endmacro %}{{ m() }}{{ g }}
{% macro w(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call w("b") %}in{{ 1 }}{% endcall %}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% set a = 3 %}{{ a }}{% endwith %}{{ a }}
{% filter upper %}abc{{ "d" }}{% endfilter %}{% filter replace("a", "x") | trim %} aba {% endfilter %}
{{ "  x y  "|trim }}|{{ "xxyxx"|trim("x") }}|{{ "  a ".strip() }}|{{ "aXa".strip("a") }}|{{ " a ".lstrip() }}|{{ " a ".rstrip() }}|
{{ "hello world"|title }} {{ "hello world"|capitalize }} {{ "hELLO"|lower|upper }} {{ "it's a-b (c)"|title }} {{ "it's a-b".title() }}
{{ "a,b,,c".split(",") }}{{ " a  b ".split() }}{{ "a,b,c".split(",", 1) }}{{ "a b c".split(" ")[-1] }}{{ "a,b,c".rsplit(",", 1) }}
{{ "abc".startswith("ab") }}{{ "abc".endswith(("x", "c")) }}{{ "abc".find("c") }}{{ "abc".find("z") }}{{ "abcabc".rfind("b") }}{{ "aXbX".count("X") }}
{{ "aaa".replace("a", "b", 2) }}{{ "abc".replace("", "-") }}{{ "x"|replace("x", "yy") }}{{ "a\nb\r\nc".splitlines() }}{{ "-".join(["a", "b"]) }}
{{ "prefix-x".removeprefix("prefix-") }}{{ "x.py".removesuffix(".py") }}{{ "12".isdigit() }}{{ " ".isspace() }}
{{ {"a": {"b": [1, "x"]}}|tojson }} {{ "<&>'\"\n\u001f é"|tojson }} {{ [1, 2]|tojson(indent=2) }} {{ {}|tojson(indent=4) }}
{{ {"b": 1, "a": [true, none, 1.5]}|tojson(indent=2, sort_keys=true) }}
{{ {"b": 1}|tojson(separators=(",", ":")) }} {{ "é😀"|tojson(ensure_ascii=true) }} {{ {1: 2, none: 3, true: 4}|tojson }}
{{ [3,1,2]|sort }}{{ ["b","A","c"]|sort }}{{ [3,1,2]|sort(reverse=true) }}{{ [{"k": 2}, {"k": 1}]|sort(attribute="k")|map(attribute="k")|list }}
{{ [1,2,3]|first }}{{ [1,2,3]|last }}{{ "abc"|first }}{{ [1,1,2]|unique|list }}{{ [1,2]|sum }}{{ [1,2]|join("-") }}{{ [[1,2],[3]]|map("join", ",")|list }}
{{ [1,2,3,4]|select("odd")|list }}{{ [1,2,3]|reject("equalto", 2)|list }}{{ [0,1,""]|select|list }}{{ ["a","b"]|map("upper")|join }}
{{ [{"r":"a"},{"r":"b"}]|selectattr("r","equalto","a")|list }}{{ [{"r":1},{}]|selectattr("r","defined")|list }}{{ [{"r":1},{"r":0}]|rejectattr("r")|list }}
{{ {"b":1,"a":2}|dictsort }}{{ {"b":1,"a":2}|dictsort(by="value") }}{{ {"a":1}|items|list }}{{ {"a":1}.keys()|list }}{{ {"a":1}.values()|list }}
{{ {"a":1}.get("a") }}{{ {"a":1}.get("b") }}{{ {"a":1}.get("b", 7) }}{{ {"items": 5}["items"] }}{{ {"a": {"c": 3}}.a.c }}{{ {"a":1}.zz is defined }}
{{ "5"|int + 1 }}{{ "x"|int }}{{ "x"|int(7) }}{{ "2.5"|float }}{{ 3.99|int }}{{ 2.5|round }}{{ 2.567|round(2) }}{{ 2.1|round(0, "ceil") }}{{ -3|abs }}{{ 5|string ~ "x" }}
{{ x|default("d") }}{{ ""|default("d") }}{{ ""|default("d", true) }}{{ none|d("n", boolean=true) }}{{ x|default }}
{{ "a\nb\n\nc"|indent }}|{{ "a\nb"|indent(2, true) }}|{{ "a\nb"|indent(width=1, first=true) }}
{{ 1 is number }}{{ "a" is string }}{{ [] is iterable }}{{ {} is mapping }}{{ [] is sequence }}{{ none is none }}{{ true is boolean }}{{ 1 is integer }}{{ 1.0 is float }}{{ true is number }}
{{ 4 is divisibleby 2 }}{{ 4 is divisibleby(3) }}{{ 3 is odd }}{{ 3 is even }}{{ 1 is in [1] }}{{ 1 is not in [1] }}{{ "a" is eq "a" }}{{ true is true }}{{ 1 is true }}{{ 1 is not string }}
{{ -1|abs }}{{ (-1)|abs }}{{ 1 + 2|string|length }}{{ not x is defined }}{{ "a" ~ "b"|upper }}
{{ range(5)|list }}{{ range(1, 4)|list }}{{ range(5, 0, -2)|list }}{{ dict(a=1, b=2) }}{{ "ab" * 3 }}{{ [1] * 2 }}{{ [1] + [2] }}
{{ strftime_now("%Y-%m-%d %H:%M %B %b %j") }}
{{ {"a": 1, "a": 2} }}{{ [[1, [2, [3]]]] }}{{ {"x": [1, {"y": (1, 2)}]} }}
{% for m in messages %}{{ m.role }}:{{ m["content"] }}{{ m.missing }}{{ "," if not loop.last }}{% endfor %}
{{ messages[-1].content }}{{ messages|length }}{{ messages[0]["role"]|upper }}{{ messages|map(attribute="role")|list }}
{{ loop is defined }}{{ messages[99] is defined }}{{ messages[0].content.x is defined }}{{ none.x is defined }}
{{ "%s" if false else "x" }}{# {{ #}{{ "}}" }}{{ "{%" }}{{ {"a": {"b": 1}}}}
{{ raise_exception("my message") }}
{{ missing.attribute }}
{{ missing() }}
{{ 1 + "a" }}
{{ "a" < 1 }}
{{ [].append(1) }}
{{ messages.append(1) }}
{{ 1 / 0 }}
{{ x["y"] }}
{% for x in 5 %}{% endfor %}
{{ {"a": missing}|tojson }}
{{ range(10**9) }}
'''

# Not accepted, and must not be.
BROKEN = r'''
{{ 1
{% if %}
{% if true %}
{% endfor %}
{{ }}
{{ a b }}
{{ (1 }}
{{ 1) }}
{{ [1, 2 }}
{{ {"a" 1} }}
{{ "abc }}
{# never ends
{% raw %} x
{% for in x %}{% endfor %}
{% set = 1 %}
{% unknown_tag %}
{{ x | unknown_filter }}
{{ x is unknown_test }}
{% macro %}{% endmacro %}
{% include "x" %}
{% import "os" as os %}
{% extends "x" %}
{{ a.b. }}
{{ a[ }}
{{ f(a=1, 2) }}
{{ 1 +* 2 }}
{{ not }}
{% else %}
{% if true %}{% else %}{% else %}{% endif %}
{% break %}
{{ "a" if }}
'''


def cases(directory):
    chat = CHATS["turns"]
    for i, text in enumerate(SNIPPETS.strip().split("\n")):
        yield {"name": "snippet %d" % i,
               "template": text.replace("\\n  ", "\n  ").replace(
                   "%}\\n", "%}\n").replace("}}\\n", "}}\n").replace(
                   "\\n{", "\n{"),
               "messages": chat}
    for i, text in enumerate(BROKEN.strip().split("\n")):
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
