#!/usr/bin/env python3
"""Writes task.jsonl, questions with choices about examples/text/eval.txt, and task.json, what lm-evaluation-harness counts for
examples/stories-4m on them (its model type hf, fp32, without BOS).

  python3 tests/golden/eval/make_task.py      (lm_eval 0.4, transformers 5, torch)
"""
import json
import pathlib
import random
import re
import tempfile

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

here = pathlib.Path(__file__).resolve().parent
examples = here.parents[2] / "examples"

TASK = """task: gptvq_choices
dataset_path: json
dataset_kwargs:
  data_files:
    test: {path}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_norm
"""


def questions(count):
    draw = random.Random(20260801)
    stories = [s for s in (examples / "text/eval.txt").read_text().split("\n\n") if len(s) > 400]
    ends = []
    for story in stories:
        words = re.split(r"(?<=[.!?]) ", story.replace("\n", " "))[:6]
        if len(words) >= 4 and all(4 <= len(w.split()) for w in words[:4]):
            ends.append(words)
    draw.shuffle(ends)
    for i in range(count):
        story = ends[i % len(ends)]
        known = " ".join(story[: 1 + i % 2])
        last = story[1 + i % 2].split()
        cut = len(last) // 2
        right = " ".join(last[cut:])
        choices = [right]
        while len(choices) < 2 + i % 3:
            other = draw.choice(ends)[draw.randrange(1, 4)].split()
            other = " ".join(other[len(other) // 2 :])
            if other not in choices:
                choices.append(other)
        draw.shuffle(choices)
        yield {"question": known + " " + " ".join(last[:cut]), "choices": choices, "answer": choices.index(right)}


def main():
    path = here / "task.jsonl"
    with path.open("w") as out:
        for question in questions(60):
            out.write(json.dumps(question) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "choices.yaml").write_text(TASK.format(path=path))
        model = HFLM(pretrained=str(examples / "stories-4m"), dtype="float32", device="cpu", batch_size=1, add_bos_token=False)
        results = lm_eval.simple_evaluate(model=model, tasks=["gptvq_choices"], bootstrap_iters=0,
                                          task_manager=TaskManager(include_path=folder, include_defaults=False))
    found = results["results"]["gptvq_choices"]
    expected = {"accuracy": found["acc,none"], "accuracy_norm": found["acc_norm,none"], "questions": 60, "lm_eval": lm_eval.__version__}
    (here / "task.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(expected)


if __name__ == "__main__":
    main()
