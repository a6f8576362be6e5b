"""Writes distributions.txt: what transformers' logits processors make of given logits. A case is three lines: vocabulary, temperature,
top-k, top-p, min-p, repetition penalty, length of the history, history; logits; probabilities."""
import os
import random

import torch
from transformers import (MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper,
                          TopPLogitsWarper)

CASES = [  # temperature, top-k, top-p, min-p, penalty, history
    (1.0, 0, 1.0, 0.1, 1.0, []),
    (0.7, 0, 1.0, 0.3, 1.0, []),
    (1.0, 0, 1.0, 0.0, 1.3, [1, 4, 4, 4, 7, 1]),
    (1.0, 0, 1.0, 0.0, 0.6, [3, 9, 10]),
    (1.5, 8, 0.9, 0.05, 1.2, [0, 2, 5, 5, 8]),
    (0.5, 0, 0.95, 0.2, 2.0, list(range(20))),
    (2.0, 12, 1.0, 0.25, 1.1, [6]),
]
VOCAB = 24


def main():
    draw = random.Random(1)
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "distributions.txt"), "w") as out:
        for temperature, top_k, top_p, min_p, penalty, history in CASES:
            logits = torch.tensor([[draw.uniform(-3.0, 3.0) for _ in range(VOCAB)]])
            scores, ids = logits.clone(), torch.tensor([history], dtype=torch.long)
            steps = [RepetitionPenaltyLogitsProcessor(penalty)] if history else []
            steps.append(TemperatureLogitsWarper(temperature))
            if top_k > 0:
                steps.append(TopKLogitsWarper(top_k))
            if top_p < 1.0:
                steps.append(TopPLogitsWarper(top_p))
            if min_p > 0.0:
                steps.append(MinPLogitsWarper(min_p))
            for step in steps:
                scores = step(ids, scores)
            probabilities = torch.softmax(scores.double(), -1)[0].tolist()
            print(VOCAB, temperature, top_k, top_p, min_p, penalty, len(history), *history, file=out)
            print(*[f"{x:.9g}" for x in logits[0].tolist()], file=out)
            print(*[f"{p:.9g}" for p in probabilities], file=out)


main()
