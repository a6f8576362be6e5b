"""Writes greedy.txt: the 40 most likely tokens in a row that transformers writes with the example model after "Once upon a time" when
repetitions are penalized by 1.3, one id per line."""
import os

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

here = os.path.dirname(os.path.abspath(__file__))
folder = os.path.join(here, "../../../examples/stories-4m")
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
ids = AutoTokenizer.from_pretrained(folder)("Once upon a time", return_tensors="pt").input_ids
new = model.generate(ids, do_sample=False, max_new_tokens=40, repetition_penalty=1.3)[0, ids.shape[1]:]
with open(os.path.join(here, "greedy.txt"), "w") as out:
    print(*new.tolist(), sep="\n", file=out)
