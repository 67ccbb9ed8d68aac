#!/usr/bin/env python3
"""Client libraries that are not of the check's environment, against a server
of our own: huggingface_hub.InferenceClient and langchain-openai.

    clients.py        (with python that has huggingface_hub and
                       langchain-openai; models in INFER_MODELS)

Prints a line for each thing that was asked; exit 1 when one is wrong.
(InferenceClient.text_classification is not among them: it wants a list in a
list, which text-embeddings-inference does not give for one text either.)
"""

import math
import os
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests", "http"))
from nginx import Nginx  # noqa: E402

HTTP = """
    infer_model emb  { file @MODELS@/minilm; }
    infer_model chat { file @MODELS@/smollm2.gguf; threads 2; }
    infer_model t5   { file @MODELS@/t5-small; threads 2; }
"""
SERVER = """
        location /emb/  { infer_pass emb; }
        location /t5/   { infer_pass t5; }
        location /chat/ { infer_pass chat; }
        location /v1/   { infer_pass chat emb; }
        location = /emb { rewrite ^ /emb/embed last; }
        location = /t5  { rewrite ^ /t5/generate last; }
        location = /chat { rewrite ^ /chat/generate last; }
        location = /readyz { infer_pass emb chat t5; }
"""
WRONG = []


def check(what, good, seen=""):
    print("%s %s %s" % ("ok  " if good else "FAIL", what, str(seen)[:100]))
    if not good:
        WRONG.append(what)


def norm(v):
    return math.sqrt(sum(float(x) * float(x) for x in v))


def hub(url):
    from huggingface_hub import InferenceClient, __version__
    print("huggingface_hub", __version__)

    vector = InferenceClient(url + "/emb").feature_extraction("hello world")
    vector = vector.reshape(-1)
    check("feature_extraction", len(vector) == 384
          and abs(norm(vector) - 1) < 1e-3, vector.shape)

    for name in ("t5", "chat"):
        client = InferenceClient(url + "/" + name)
        text = client.text_generation("Hello, my name is", max_new_tokens=8)
        check(name + " text_generation", isinstance(text, str), repr(text))
        one = client.text_generation("Hello, my name is", max_new_tokens=8,
                                     details=True)
        check(name + " details", one.generated_text == text
              and one.details.generated_tokens in range(1, 10),
              one.details.finish_reason)
        parts = "".join(client.text_generation(
            "Hello, my name is", max_new_tokens=8, stream=True))
        check(name + " stream", parts.strip() == text.strip(), repr(parts))

    answer = InferenceClient(base_url=url).chat_completion(
        [{"role": "user", "content": "Hello"}], max_tokens=8, model="chat")
    check("chat_completion", answer.choices[0].message.content, answer.usage)


def langchain(url):
    import langchain_openai
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings
    from importlib.metadata import version
    print("langchain-openai", version(langchain_openai.__package__.replace(
        "_", "-")))

    # a model of one's own: its tokens are not those of OpenAI's
    embeddings = OpenAIEmbeddings(model="emb", base_url=url + "/v1",
                                  api_key="none",
                                  check_embedding_ctx_length=False)
    one = embeddings.embed_query("hello world")
    two = embeddings.embed_documents(["hello world", "something else"])
    check("embed_query", len(one) == 384 and abs(norm(one) - 1) < 1e-3)
    check("embed_documents", len(two) == 2 and two[0] == one)

    chat = ChatOpenAI(model="chat", base_url=url + "/v1", api_key="none",
                      max_tokens=8, temperature=0)
    answer = chat.invoke("Hello")
    check("invoke", answer.content, repr(answer.content))
    check("usage", answer.usage_metadata["output_tokens"] > 0,
          answer.usage_metadata)
    text = "".join(part.content for part in chat.stream("Hello"))
    check("stream", text == answer.content, repr(text))
    many = chat.batch(["Hello", "Good day"])
    check("batch", len(many) == 2 and many[0].content == answer.content)


def main():
    server = Nginx(http=HTTP, server=SERVER, ready="/readyz")
    try:
        hub(server.url)
        langchain(server.url)
    finally:
        server.stop()
    return 1 if WRONG else 0


if __name__ == "__main__":
    sys.exit(main())
