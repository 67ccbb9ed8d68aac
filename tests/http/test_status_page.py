"""conf-examples/status/index.html: what it may load, and, in a headless
Chromium, what it shows. Screenshots go to build/status/."""

import base64
import hashlib
import os
import re
import time

import pytest

from browser import Browser, chromium
from conftest import model_path
from nginx import TOP, build_dir

FOLDER = os.path.join(TOP, "conf-examples", "status")
HTTP = """
    infer_model one {
        file     @MODELS@/smollm2.gguf;
        null     tokens=40 delay=5ms;
        threads  1;
        workers  2;
    }
    infer_model two {
        file     @MODELS@/smollm2.gguf;
        null     tokens=7;
        threads  1;
    }
"""
CHAT = "/v1/chat/completions"


def page():
    with open(os.path.join(FOLDER, "index.html")) as file:
        return file.read()


def inline(tag):
    [text] = re.findall(r"<%s>(.*?)</%s>" % (tag, tag), page(), re.S)
    return text


def example():
    """The policy that conf-examples/status.conf gives the page."""
    with open(os.path.join(TOP, "conf-examples", "status.conf")) as file:
        text = file.read()
    return "\n".join(re.findall(r"^ *set  (\$(?:csp|js|css) .*)$", text,
                                re.M))


def server_block(prefix):
    sets = "\n".join("set %s" % line for line in example().split("\n"))
    return """
        location %s {
            alias  %s/;
            index  index.html;
            types  { text/html html; }
            %s
            add_header  Content-Security-Policy $csp;
            location = %sstatus { infer_status; }
            location %sv1/ { infer_pass one two; }
        }
        location /v1/      { infer_pass one; }
        location = /readyz { infer_pass one two; }
    """ % (prefix, FOLDER, sets, prefix, prefix)


@pytest.mark.parametrize("tag, name", [("script", "js"), ("style", "css")])
def test_policy_names_what_is_inline(tag, name):
    digest = hashlib.sha256(inline(tag).encode()).digest()
    want = '"sha256-%s"' % base64.b64encode(digest).decode()
    assert re.search(r"\$%s +%s;" % (name, re.escape(want)), example()), want


def test_loads_nothing_else():
    text = page()
    assert not re.findall(r"(?:src|href)=\"(?!data:,|#)", text)
    assert not re.findall(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)",
                          text)
    assert not re.findall(r"<[^>]*\s(?:style|on\w+)=", text)
    assert "innerHTML" not in text and "eval(" not in text


def test_status_has_what_the_page_reads(nginx):
    model_path("smollm2.gguf")
    server = nginx(http=HTTP, server=server_block("/ops/"), ready="/readyz")
    assert server.post(CHAT, {"messages": [
        {"role": "user", "content": "Hello"}]}).status == 200
    one, two = server.get("/ops/status").json()["models"]
    assert one["kind"] == "generate" and one["requests"]["length"] + \
        one["requests"]["stop"] == 1
    assert set(one["shed"].values()) == {0} and one["retries"] == 0
    assert one["tokens"] == 41 and two["tokens"] == 0
    for name in re.findall(r": \"(\w+_seconds)\"", page()):
        assert len(one[name]["count"]) == len(one[name]["le"]) + 1
        if name != "inter_token_seconds":
            assert sum(one[name]["count"]) == 1, name
    for worker in one["workers"]:
        for name in re.findall(r"\bw\.(\w+)", inline("script")):
            assert name in worker


@pytest.fixture
def browser():
    if chromium() is None:
        pytest.skip("no chromium: Debian's package of that name has it")
    one = Browser()
    yield one
    one.close()


def figure(browser, number):
    return browser.value("document.querySelectorAll('.plot .now')[%d]"
                         ".firstChild.textContent" % number)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["/", "/a/deep/prefix/"])
def test_in_a_browser(nginx, browser, prefix):
    model_path("smollm2.gguf")
    block = server_block(prefix)
    if prefix == "/":
        block = block.replace("location /v1/      { infer_pass one; }", "")
    server = nginx(http=HTTP, server=block, ready="/readyz")
    browser.open(server.url + prefix)
    browser.wait("document.querySelectorAll('[role=tab]').length === 2")
    browser.wait("document.querySelectorAll('#workers tr').length === 2")

    # a chat, by keyboard alone
    browser.value("document.getElementById('question').focus()")
    browser.type("Hello there")
    browser.press("Enter", code="Enter", windowsVirtualKeyCode=13,
                  text="\r")
    browser.wait("document.querySelector('.took')")
    assert "This answer comes from no model" in browser.value(
        "document.querySelector('.said.model').textContent")
    assert "41 tokens" in browser.value(
        "document.querySelector('.took').textContent")
    browser.wait("document.querySelectorAll('.plot path.line').length > 8")
    browser.wait("document.querySelector('#facts').textContent"
                 ".includes('answered 1')")
    assert figure(browser, 5).endswith("ms")        # first token
    labels = browser.value("Array.from(document.querySelectorAll("
                           "'svg[role=img]'), s => s.ariaLabel).join('|')")
    assert "Generated tokens: generated" in labels

    # the other model, by arrow keys; then what a broken status says
    browser.value("document.querySelector('[role=tab]').focus()")
    browser.press("ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
    assert browser.value("document.querySelector('[aria-selected=true]')"
                         ".textContent") == "two"
    browser.wait("document.querySelectorAll('#workers tr').length === 1")
    assert browser.problems() == []
    pictures(browser)
    server.write_conf(server=block.replace("{ infer_status; }",
                                           "{ return 503; }"))
    server.reload()
    browser.wait("!document.getElementById('banner').hidden")
    server.write_conf(server=block)
    server.reload()
    browser.wait("document.getElementById('banner').hidden")


def pictures(browser):
    folder = os.path.join(build_dir(), "status")
    os.makedirs(folder, exist_ok=True)
    for scheme in "light", "dark":
        browser.colours(scheme)
        for width in 1360, 420:
            browser.resize(width, 900)
            time.sleep(0.3)
            assert browser.value("document.documentElement.scrollWidth") \
                <= width
            browser.screenshot(os.path.join(folder, "%s-%d.png" % (scheme,
                                                                   width)))
