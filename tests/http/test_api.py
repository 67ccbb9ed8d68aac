"""The API in front of the null model: shapes, statuses, headers, refusals.

The null model answers a fixed text after the same way through JSON, rings,
tokenizer, batch and detokenizer as any other, so what is tested here is ours.
"""

import json
import socket

import openai
import pytest

from conftest import model_path
from nginx import Nginx

HTTP = """
    infer_model null {
        file     @MODELS@/smollm2.gguf;
        null     tokens=12;
        threads  1;
    }
    infer_model other {
        file     @MODELS@/smollm2.gguf;
        null     tokens=2;
        threads  1;
    }
"""

SERVER = """
        client_max_body_size     1m;
        client_body_buffer_size  16k;

        location /v1/              { infer_pass null other; }
        location /capped/          { infer_pass null; infer_max_tokens 3; }
        location /                 { infer_pass other; }
        location = /readyz         { infer_pass null other; }
        location = /healthz        { infer_pass null; }
        location = /exact/v1/chat/completions { infer_pass other; }
        location ~ ^/re/           { infer_pass other; }
        location = /status         { infer_status; }
        location = /metrics        { infer_metrics; }
        location /small/ {
            client_max_body_size  1k;
            infer_pass            null;
        }
        location /if/ {
            set $found "";
            if ($http_x_flag) {
                set $found 1;
            }
            if ($http_x_stop) {
                return 403;
            }
            infer_pass  null;
        }
        location /except/ {
            limit_except POST { deny all; }
            infer_pass  null;
        }
        location /closed/ {
            deny        all;
            infer_pass  null;
        }
"""

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def server():
    model_path("smollm2.gguf")
    nginx = Nginx(http=HTTP, server=SERVER, workers=2, ready="/readyz")
    yield nginx
    nginx.stop()


@pytest.fixture
def client(server):
    return server.openai()


def chat(**more):
    return dict({"model": "null", "messages": HELLO}, **more)


def text(**more):
    return dict({"model": "null", "prompt": "Hello", "max_tokens": 64},
                **more)


def error_of(response, status, code=None, param=None):
    """The four keys of OpenAI's error object, all there."""
    assert response.status == status, response.body
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["x-request-id"]
    error = response.json()["error"]
    assert sorted(error) == ["code", "message", "param", "type"]
    assert isinstance(error["message"], str) and error["message"]
    assert error["code"] is None or isinstance(error["code"], str)
    if code is not None:
        assert error["code"] == code
    if param is not None:
        assert error["param"] == param
    return error


# ---- answers

def test_chat_object(server):
    answer = server.post(CHAT, chat())
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert body["model"] == "null"
    assert body["created"] > 1600000000
    assert body["system_fingerprint"].startswith("fp_")
    [choice] = body["choices"]
    assert choice["index"] == 0
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    assert choice["message"]["refusal"] is None
    assert choice["logprobs"] is None
    assert choice["finish_reason"] in ("stop", "length")
    usage = body["usage"]
    assert usage["prompt_tokens"] > 0 and usage["completion_tokens"] > 0
    assert usage["total_tokens"] == (usage["prompt_tokens"]
                                     + usage["completion_tokens"])
    assert "cached_tokens" in usage["prompt_tokens_details"]


def test_chat_by_client(client):
    answer = client.chat.completions.create(model="null", messages=HELLO)
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens > 0
    assert answer._request_id


def test_chat_stream_equals_answer(client):
    whole = client.chat.completions.create(model="null", messages=HELLO)
    stream = client.chat.completions.create(model="null", messages=HELLO,
                                            stream=True)
    chunks = list(stream)
    assert len({c.id for c in chunks}) == 1
    assert len({c.created for c in chunks}) == 1
    assert {c.object for c in chunks} == {"chat.completion.chunk"}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(c.usage is None for c in chunks)
    parts = [c.choices[0].delta.content or "" for c in chunks]
    assert "".join(parts) == whole.choices[0].message.content
    assert len(parts) > 4
    reasons = [c.choices[0].finish_reason for c in chunks]
    assert reasons[-1] == whole.choices[0].finish_reason
    assert reasons[:-1] == [None] * (len(reasons) - 1)


def test_stream_bytes(server):
    conn = server.request("POST", CHAT, chat(stream=True))
    assert conn.status == 200
    assert conn.headers["Content-Type"] == "text/event-stream"
    assert conn.headers["Cache-Control"] == "no-cache"
    assert conn.headers["X-Accel-Buffering"] == "no"
    events = conn.body.split(b"\n\n")
    assert events.pop() == b""
    assert events[-1] == b"data: [DONE]"
    for event in events[:-1]:
        assert event.startswith(b"data: {") and b"\n" not in event
        assert "usage" not in json.loads(event[6:])


def test_stream_usage(server):
    chunks = [json.loads(data) for data in server.stream(
        CHAT, chat(stream=True, stream_options={"include_usage": True}))
        if data != "[DONE]"]
    assert all(c["usage"] is None for c in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] > 0


def test_several_choices(client):
    answer = client.chat.completions.create(model="null", messages=HELLO, n=3)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert all(c.message.content for c in answer.choices)
    one = client.chat.completions.create(model="null", messages=HELLO)
    assert (answer.usage.completion_tokens
            == 3 * one.usage.completion_tokens)


def test_several_choices_stream(server):
    text_of, reason = {}, {}
    for data in server.stream(CHAT, chat(stream=True, n=3)):
        if data == "[DONE]":
            break
        for choice in json.loads(data)["choices"]:
            index = choice["index"]
            assert index not in reason
            text_of[index] = (text_of.get(index, "")
                              + choice["delta"].get("content", ""))
            if choice["finish_reason"]:
                reason[index] = choice["finish_reason"]
    assert sorted(text_of) == sorted(reason) == [0, 1, 2]
    assert len(set(text_of.values())) == 1


def test_completion_object(server):
    body = server.post(TEXT, text()).json()
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    [choice] = body["choices"]
    assert choice["text"] and choice["index"] == 0
    assert choice["logprobs"] is None


def test_completion_stream(client):
    whole = client.completions.create(model="null", prompt="Hello",
                                      max_tokens=64)
    chunks = list(client.completions.create(model="null", prompt="Hello",
                                            max_tokens=64, stream=True))
    assert ("".join(c.choices[0].text for c in chunks)
            == whole.choices[0].text)
    assert {c.object for c in chunks} == {"text_completion"}


def test_several_prompts(client):
    answer = client.completions.create(model="null", prompt=["a", "b", "c"],
                                       n=2, max_tokens=64)
    assert [c.index for c in answer.choices] == list(range(6))


def test_prompt_of_ids(client):
    answer = client.completions.create(model="null", prompt=[1, 2, 3, 4],
                                       max_tokens=64)
    assert answer.usage.prompt_tokens == 4
    answer = client.completions.create(model="null",
                                       prompt=[[1, 2, 3], [4, 5]],
                                       max_tokens=64)
    assert answer.usage.prompt_tokens == 5
    assert len(answer.choices) == 2


def test_max_tokens(client):
    for names in ({"max_tokens": 3}, {"max_completion_tokens": 3},
                  {"max_tokens": 9, "max_completion_tokens": 3}):
        answer = client.chat.completions.create(model="null", messages=HELLO,
                                                **names)
        assert answer.usage.completion_tokens == 3
        assert answer.choices[0].finish_reason == "length"


def test_max_tokens_cap(server):
    answer = server.post("/capped/chat/completions", chat(max_tokens=9))
    assert answer.json()["usage"]["completion_tokens"] == 3


def test_completions_default_is_16_tokens(client, server):
    answer = client.completions.create(model="null", prompt="x")
    assert answer.usage.completion_tokens <= 16


def test_chat_logprobs(client):
    answer = client.chat.completions.create(model="null", messages=HELLO,
                                            logprobs=True, top_logprobs=2,
                                            max_tokens=4)
    content = answer.choices[0].logprobs.content
    assert len(content) == 4
    for token in content:
        assert bytes(token.bytes).decode("utf-8", "replace") == token.token
        assert token.logprob <= 0
        assert len(token.top_logprobs) <= 2
    joined = b"".join(bytes(t.bytes) for t in content)
    assert joined.decode() == answer.choices[0].message.content


def test_chat_logprobs_stream(client):
    chunks = list(client.chat.completions.create(
        model="null", messages=HELLO, logprobs=True, top_logprobs=1,
        max_tokens=4, stream=True))
    tokens = [t for c in chunks if c.choices[0].logprobs
              for t in c.choices[0].logprobs.content]
    assert len(tokens) == 4


def test_completion_logprobs(client):
    answer = client.completions.create(model="null", prompt="Hello",
                                       logprobs=2, max_tokens=4)
    logprobs = answer.choices[0].logprobs
    assert (len(logprobs.tokens) == len(logprobs.token_logprobs)
            == len(logprobs.top_logprobs) == len(logprobs.text_offset) == 4)
    assert "".join(logprobs.tokens) == answer.choices[0].text


def test_completion_echo(client):
    answer = client.completions.create(model="null", prompt="Hello there",
                                       logprobs=1, max_tokens=3, echo=True)
    [choice] = answer.choices
    assert choice.text.startswith("Hello there")
    logprobs = choice.logprobs
    assert "".join(logprobs.tokens) == choice.text
    assert logprobs.token_logprobs[0] is None
    assert logprobs.top_logprobs[0] is None
    assert all(n <= 0 for n in logprobs.token_logprobs[1:])


def test_stop(client):
    whole = client.chat.completions.create(model="null", messages=HELLO)
    word = whole.choices[0].message.content.split()[2]
    answer = client.chat.completions.create(model="null", messages=HELLO,
                                            stop=word)
    assert word not in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


def test_tokenize_round_trip(server):
    tokens = server.post("/v1/tokenize", {"model": "null",
                                          "prompt": "Hello w\u00f6rld",
                                          "add_special_tokens": False}).json()
    assert tokens["count"] == len(tokens["tokens"]) > 0
    assert tokens["max_model_len"] > 0
    back = server.post("/v1/detokenize", {"model": "null",
                                          "tokens": tokens["tokens"]})
    assert back.json()["prompt"] == "Hello w\u00f6rld"


def test_tokenize_offsets_and_messages(server):
    answer = server.post("/v1/tokenize", {"prompt": "Hello world",
                                          "return_offsets": True}).json()
    assert len(answer["offsets"]) == answer["count"]
    chat_tokens = server.post("/v1/tokenize", {"messages": HELLO}).json()
    usage = server.post(CHAT, chat()).json()["usage"]
    assert chat_tokens["count"] == usage["prompt_tokens"]


def test_text_is_escaped(server):
    answer = server.post("/v1/detokenize", {"tokens": server.post(
        "/v1/tokenize", {"prompt": 'a"b\\c\n\t\u0001\u00e9\U0001f600',
                         "add_special_tokens": False}).json()["tokens"]})
    assert answer.json()["prompt"] == 'a"b\\c\n\t\u0001\u00e9\U0001f600'


# ---- small endpoints

def test_models(client, server):
    assert [m.id for m in client.models.list()] == ["null", "other"]
    assert client.models.retrieve("other").id == "other"
    error_of(server.get("/v1/models/none"), 404, "model_not_found")


def test_health(server):
    assert server.get("/healthz").json() == {"status": "ok"}
    ready = server.get("/readyz")
    assert ready.status == 200 and ready.json()["status"] == "ready"
    head = server.request("HEAD", "/healthz")
    assert head.status == 200 and head.body == b""


def test_status(server):
    server.post(CHAT, chat())
    status = server.get("/status").json()
    names = [m["name"] for m in status["models"]]
    assert names == ["null", "other"]
    [worker] = status["models"][0]["workers"]
    assert worker["state"] == "ready" and worker["pid"] > 0
    assert worker["retired"] is False


def test_metrics(server):
    server.post(CHAT, chat())
    body = server.get("/metrics")
    assert body.headers["Content-Type"].startswith("text/plain")
    lines = body.body.decode().split("\n")
    values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
              for line in lines if line and not line.startswith("#")}
    assert values['nginx_infer_pool_worker_up{model="null",worker="0"}'] == 1
    ended = sum(values['nginx_infer_requests_total{model="null",finish="%s"}'
                       % finish] for finish in ("stop", "length"))
    assert ended >= 1
    count = 'nginx_infer_time_to_first_token_seconds_count{model="null"}'
    last = ('nginx_infer_time_to_first_token_seconds_bucket{model="null",'
            'le="+Inf"}')
    assert values[count] == values[last] >= 1
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))


def test_locations(server):
    for path in ("/v1/chat/completions", "/chat/completions",
                 "/exact/v1/chat/completions", "/re/any/chat/completions"):
        answer = server.post(path, {"messages": HELLO})
        assert answer.status == 200, path


def test_model_is_chosen(server):
    for model in ("null", "other"):
        assert server.post(CHAT, chat(model=model)).json()["model"] == model
    body = {"messages": HELLO}
    assert server.post(CHAT, body).json()["model"] == "null"


# ---- refusals

def test_unknown_url(server):
    error_of(server.post("/v1/chat/completion", chat()), 404, "unknown_url")
    error_of(server.post("/v1/x/chat/completions", chat()), 404)
    error_of(server.get("/v1/"), 404)


def test_method(server):
    answer = server.get(CHAT)
    error_of(answer, 405)
    assert answer.headers["Allow"] == "POST"
    answer = server.post("/v1/models", {})
    error_of(answer, 405)
    assert answer.headers["Allow"] == "GET, HEAD"


def test_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


@pytest.mark.parametrize("body", [
    "", "{", "[]", "null", "42", '{"messages": [}', '{"a":1,}', "{'a':1}",
    '{"model":"null" "messages":[]}', '{"messages":[]} x', b"\xef\xbb\xbf{}",
    '{"a":01}', '{"a":"\n"}', '{"a":"\\x"}', '{"a":NaN}', '{"a":1}{"a":1}',
    "[" * 100000, '{"a":' * 3000, b'{"a":"\xff"}', b'{"a":"\xc0\xaf"}',
    b'{"a":"\xed\xa0\x80"}', '{"a":"\\ud800"}', '{"model":1,"model":2}',
])
def test_not_json(server, body):
    answer = server.post(CHAT, body)
    error_of(answer, 400, "invalid_json")


BAD_FIELDS = [
    ({"messages": None}, "missing_required_parameter", "messages"),
    ({"messages": []}, "invalid_value", "messages"),
    ({"messages": "hi"}, "invalid_type", "messages"),
    ({"model": 5}, "invalid_type", "model"),
    ({"temperature": "hot"}, "invalid_type", "temperature"),
    ({"temperature": 2.01}, "invalid_value", "temperature"),
    ({"temperature": -0.01}, "invalid_value", "temperature"),
    ({"temperature": 1e999}, None, "temperature"),
    ({"top_p": 1.1}, "invalid_value", "top_p"),
    ({"min_p": -1}, "invalid_value", "min_p"),
    ({"top_k": 1.5}, "invalid_value", "top_k"),
    ({"n": 0}, "invalid_value", "n"),
    ({"n": 129}, "invalid_value", "n"),
    ({"n": 1e30}, None, "n"),
    ({"max_tokens": 0}, "invalid_value", "max_tokens"),
    ({"max_tokens": -1}, "invalid_value", "max_tokens"),
    ({"max_completion_tokens": 2 ** 64}, None, "max_completion_tokens"),
    ({"presence_penalty": 2.1}, "invalid_value", "presence_penalty"),
    ({"frequency_penalty": -2.1}, "invalid_value", "frequency_penalty"),
    ({"seed": "x"}, "invalid_type", "seed"),
    ({"stop": 5}, "invalid_type", "stop"),
    ({"stop": ""}, "invalid_value", "stop"),
    ({"stop": ["x"] * 17}, "invalid_value", "stop"),
    ({"stop": "x" * 257}, "invalid_value", "stop"),
    ({"stream": "yes"}, "invalid_type", "stream"),
    ({"stream": True, "stream_options": 1}, "invalid_type",
     "stream_options"),
    ({"stream_options": {"include_usage": True}}, "invalid_value",
     "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": 1}},
     "invalid_type", "stream_options.include_usage"),
    ({"logprobs": 3}, "invalid_type", "logprobs"),
    ({"top_logprobs": 2}, "invalid_value", "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "invalid_value",
     "top_logprobs"),
    ({"logit_bias": []}, "invalid_type", "logit_bias"),
    ({"logit_bias": {"x": 1}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {"5": 101}}, "invalid_value", "logit_bias"),
    ({"logit_bias": {"5": "a"}}, "invalid_type", "logit_bias"),
    ({"logit_bias": {str(i): 0 for i in range(1025)}}, "invalid_value",
     "logit_bias"),
    ({"tools": {}}, "invalid_type", "tools"),
    ({"tools": [1]}, "invalid_type", "tools"),
    ({"tool_choice": "required"}, "unsupported_value", "tool_choice"),
    ({"tool_choice": {"type": "function"}}, "unsupported_value",
     "tool_choice"),
    ({"response_format": {"type": "json_schema"}}, "unsupported_value",
     "response_format.type"),
    ({"response_format": {"type": "json_object"}}, "unsupported_value",
     "response_format.type"),
    ({"modalities": ["text", "audio"]}, "unsupported_value", "modalities"),
    ({"audio": {"voice": "x"}}, "unsupported_parameter", "audio"),
    ({"functions": []}, "unsupported_parameter", "functions"),
]


@pytest.mark.parametrize("fields,code,param", BAD_FIELDS,
                         ids=lambda v: str(v)[:40])
def test_bad_field(server, fields, code, param):
    body = json.dumps(chat(**fields)).replace("Infinity", "1e999")
    error_of(server.post(CHAT, body), 400, code, param)


@pytest.mark.parametrize("fields", [
    {"temperature": 0}, {"temperature": 2}, {"temperature": 0.5e0},
    {"top_p": 1}, {"top_p": 0.1}, {"min_p": 0}, {"top_k": -1}, {"top_k": 0},
    {"n": 2}, {"stop": None}, {"stop": []}, {"stop": ["x"] * 16},
    {"stop": "x" * 256}, {"presence_penalty": -2}, {"seed": -5},
    {"seed": 2 ** 63 - 1}, {"seed": -2 ** 63},
    {"logit_bias": {"5": -100, "6": 100}}, {"logit_bias": None},
    {"logit_bias": {str(i): 0.5 for i in range(1024)}},
    {"user": "u", "metadata": {"a": "b"}, "store": True},
    {"unknown": {"deep": [1, [2, {"x": None}]]}},
    {"tool_choice": "none"}, {"tool_choice": "auto"}, {"tools": []},
    {"response_format": {"type": "text"}}, {"modalities": ["text"]},
    {"audio": None}, {"stream": False}, {"logprobs": False},
    {"logprobs": True, "top_logprobs": 0}, {"max_tokens": 1},
    {"service_tier": "auto", "reasoning_effort": "low"},
], ids=lambda v: str(v)[:40])
def test_good_field(server, fields):
    answer = server.post(CHAT, chat(**fields))
    assert answer.status == 200, answer.body


def test_escaped_names_and_values(server):
    body = ('{"m\\u006fdel":"nu\\u006cl","messages":[{"role":"user",'
            '"content":"x"}]}')
    assert server.post(CHAT, body).json()["model"] == "null"


@pytest.mark.parametrize("fields,code,param", [
    ({"prompt": None}, "missing_required_parameter", "prompt"),
    ({"prompt": 5}, "invalid_type", "prompt"),
    ({"prompt": [1, "a"]}, "invalid_type", "prompt"),
    ({"prompt": ["a"] * 129}, "invalid_value", "prompt"),
    ({"prompt": ["a"] * 64, "n": 3}, "invalid_value", "n"),
    ({"prompt": [-1]}, "invalid_value", "prompt"),
    ({"prompt": [10 ** 9]}, None, None),
    ({"best_of": 2}, "unsupported_parameter", "best_of"),
    ({"suffix": "x"}, "unsupported_parameter", "suffix"),
    ({"logprobs": 21}, "invalid_value", "logprobs"),
], ids=lambda v: str(v)[:40])
def test_bad_completion(server, fields, code, param):
    error_of(server.post(TEXT, text(**fields)), 400, code, param)


def test_context_length(server, client):
    # both counts are in the message, nothing is cut silently
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="null", messages=[
            {"role": "user", "content": "word " * 20000}])
    assert caught.value.code == "context_length_exceeded"
    digits = [int(w) for w in caught.value.message.replace(".", " ").replace(
        ",", " ").split() if w.isdigit()]
    assert max(digits) > 20000 and len(digits) >= 2


def test_bad_messages_of_worker(server):
    answer = server.post(CHAT, chat(messages=[5]))
    assert answer.status == 400
    assert server.post(CHAT, chat(messages=[{"role": "user"}])).status in (
        200, 400)


def test_body_too_large(server):
    small = server.post("/small/chat/completions",
                        chat(messages=[{"role": "user",
                                        "content": "x" * 2000}]))
    error_of(small, 413, "request_too_large")


def test_denied(server):
    error_of(server.post("/closed/chat/completions", chat()), 403)


def test_inside_if_and_limit_except(server):
    path = "/if/chat/completions"
    assert server.post(path, chat()).status == 200
    assert server.post(path, chat(), headers={"X-Flag": "1"}).status == 200
    refused = server.post(path, chat(), headers={"X-Stop": "1"})
    error_of(refused, 403, "forbidden")
    wrong = server.post("/if/x/chat/completions", chat(),
                        headers={"X-Flag": "1"})
    error_of(wrong, 404)
    assert server.post("/except/chat/completions", chat()).status == 200
    error_of(server.get("/except/models"), 403)


def test_body_in_file_and_chunked(server):
    # larger than client_body_buffer_size, so nginx puts it into a file
    body = json.dumps(chat(user="u" * 200000)).encode()
    assert server.post(CHAT, body).status == 200
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                     b"Transfer-Encoding: chunked\r\n"
                     b"Connection: close\r\n\r\n")
        for at in range(0, len(body), 7000):
            part = body[at:at + 7000]
            sock.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        sock.sendall(b"0\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_request_id(server):
    mine = server.post(CHAT, chat(), headers={"X-Request-Id": "abc-1"})
    assert mine.headers["x-request-id"] == "abc-1"
    bad = server.post(CHAT, chat(), headers={"X-Request-Id": "a b"})
    assert bad.headers["x-request-id"] != "a b"


def test_keep_alive_after_errors(server):
    # a refused request does not cost the client its connection
    import http.client
    conn = http.client.HTTPConnection("127.0.0.1", server.port)
    for body in ("{", json.dumps(chat(n=0)), json.dumps(chat())):
        conn.request("POST", CHAT, body)
        answer = conn.getresponse()
        answer.read()
        assert not answer.will_close
    assert answer.status == 200
    conn.close()


def test_pipelined(server):
    one = json.dumps(chat(max_tokens=2)).encode()
    request = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
               b"Content-Length: %d\r\n\r\n%s" % (len(one), one))
    last = request.replace(b"Host: x", b"Host: x\r\nConnection: close")
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(request * 5 + last)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 200 OK") == 6
