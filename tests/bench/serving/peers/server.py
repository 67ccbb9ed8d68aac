"""T5-small behind FastAPI, as its users write it.

    SERVING=null|delay|real  KIND=transformers|tokenizers  MODEL=folder
    uvicorn server:app --port N --no-access-log

tokenizers: the Rust tokenizer, an async handler.  transformers: its own
tokenizer class and generate(), a plain handler in the thread pool.  null
answers a fixed result, delay sleeps 20 ms for each step instead of a forward
pass; parsing, tokenizing, detokenizing and serialising stay.
"""

import asyncio
import os
import time

from fastapi import FastAPI
from pydantic import BaseModel

HOW = os.environ["SERVING"]
MODEL = os.environ["MODEL"]
ANSWER = [3, 9, 19, 207, 13, 8, 1782, 1]
STEP_S = 0.02

app = FastAPI()


class Parameters(BaseModel):
    max_new_tokens: int = 8


class Request(BaseModel):
    inputs: str
    parameters: Parameters = Parameters()


if os.environ["KIND"] == "tokenizers":
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.path.join(MODEL, "tokenizer.json"))

    @app.post("/generate")
    async def generate(request: Request):
        ids = tokenizer.encode(request.inputs).ids
        assert ids
        n = request.parameters.max_new_tokens
        if HOW == "delay":
            for _ in range(n):
                await asyncio.sleep(STEP_S)
        return {"generated_text": tokenizer.decode(ANSWER[:n])}

else:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=os.path.join(MODEL, "tokenizer.json"),
        eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    if HOW == "real":
        import torch
        from transformers import T5ForConditionalGeneration

        torch.set_num_threads(2)
        model = T5ForConditionalGeneration.from_pretrained(MODEL).eval()

    @app.post("/generate")
    def generate(request: Request):
        n = request.parameters.max_new_tokens
        if HOW == "real":
            ids = tokenizer(request.inputs, return_tensors="pt").input_ids
            with torch.inference_mode():
                ids = model.generate(ids, max_new_tokens=n, do_sample=False)
            return {"generated_text": tokenizer.decode(
                ids[0], skip_special_tokens=True)}
        assert tokenizer(request.inputs).input_ids
        if HOW == "delay":
            for _ in range(n):
                time.sleep(STEP_S)
        return {"generated_text": tokenizer.decode(
            ANSWER[:n], skip_special_tokens=True)}
