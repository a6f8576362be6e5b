"""gptvq serve with the openai client and lm-evaluation-harness."""
import json
import re
import subprocess
import time

from common import note, options, package, require, row, serving

CHOICES = """task: gptvq_choices
dataset_path: json
dataset_kwargs:
  data_files:
    test: {task}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_norm
"""
GENERATE = """task: gptvq_generate
dataset_path: json
dataset_kwargs:
  data_files:
    test: {task}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer].rstrip('.!?')}}}}"
generation_kwargs:
  until: [".", "!", "?"]
  max_gen_toks: 16
  temperature: 0
filter_list:
  - name: strip
    filter:
      - function: remove_whitespace
      - function: take_first
metric_list:
  - metric: exact_match
"""


def openai_client(o):
    try:
        import openai
    except ImportError:
        return note("ecosystem: no openai: its client is left out")
    with serving(o, "--api-key", "secret", "--parallel", "4") as url:
        client = openai.OpenAI(base_url=url + "/v1", api_key="secret", max_retries=0)
        name = client.models.list().data[0].id
        fresh = {"cache_prompt": False}  # the same answer every time
        tests = 0

        def passed():
            nonlocal tests
            tests += 1

        whole = client.completions.create(model=name, prompt="Once upon a time", max_tokens=16, temperature=0, extra_body=fresh)
        require(whole.usage.completion_tokens == 16 and whole.choices[0].finish_reason == "length", "a completion")
        passed()
        pieces = client.completions.create(model=name, prompt="Once upon a time", max_tokens=16, temperature=0, stream=True, extra_body=fresh)
        require("".join(p.choices[0].text for p in pieces if p.choices) == whole.choices[0].text, "a streamed completion")
        passed()
        many = client.completions.create(model=name, prompt=["One day", "Once upon a time"], n=2, max_tokens=16, temperature=0, extra_body=fresh)
        require([c.index for c in many.choices] == [0, 1, 2, 3] and many.choices[3].text == whole.choices[0].text, "prompts and n")
        passed()
        scored = client.completions.create(model=name, prompt="Once upon a time", max_tokens=1, echo=True, logprobs=3, temperature=0)
        found = scored.choices[0].logprobs
        require(found.token_logprobs[0] is None and all(p < 0 for p in found.token_logprobs[1:]) and
                len(found.tokens) == len(found.text_offset) == scored.usage.total_tokens, "log probabilities of the prompt")
        passed()
        seeded = [client.completions.create(model=name, prompt="One", max_tokens=16, seed=3, extra_body=fresh).choices[0].text
                  for _ in range(2)]
        require(seeded[0] == seeded[1], "seeds")
        passed()
        try:
            client.completions.create(model="another", prompt="a")
            require(False, "an unknown model")
        except openai.NotFoundError as error:
            require(error.code == "model_not_found", "an unknown model's error")
        passed()
        try:
            client.with_options(api_key="wrong").models.list()
            require(False, "a wrong key")
        except openai.AuthenticationError:
            passed()
        messages = [{"role": "user", "content": "What is the capital of France?"}]
        try:
            answer = client.chat.completions.create(model=name, messages=messages, max_tokens=16, temperature=0, logprobs=True, top_logprobs=2,
                                                    extra_body=fresh)
        except openai.BadRequestError as error:
            require(error.code == "no_chat_template", "a chat")
            note("ecosystem: the model has no chat template")
            return row("openai " + openai.__version__, "completions; stream; n; logprobs; errors", f"{tests} of {tests} pass")
        content = answer.choices[0].message.content
        require(len(answer.choices[0].logprobs.content) == answer.usage.completion_tokens, "a chat's log probabilities")
        passed()
        stream = client.chat.completions.create(model=name, messages=messages, max_tokens=16, temperature=0, stream=True,
                                                stream_options={"include_usage": True}, extra_body=fresh)
        chunks = list(stream)
        require("".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == content, "a streamed chat")
        require(chunks[-1].usage.completion_tokens == answer.usage.completion_tokens, "a stream's usage")
        passed()
        try:
            client.chat.completions.create(model=name, messages=messages, response_format={"type": "json_object"})
            require(False, "response_format")
        except openai.BadRequestError:
            passed()
        row("openai " + openai.__version__, "completions; chats; streams; n; logprobs; errors", f"{tests} of {tests} pass")


def lm_eval_client(o):
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError:
        return note("ecosystem: no lm_eval: it is left out")
    folder = o.scratch / "tasks"
    folder.mkdir(exist_ok=True)
    (folder / "choices.yaml").write_text(CHOICES.format(task=o.task))
    (folder / "generate.yaml").write_text(GENERATE.format(task=o.task))
    ours = json.loads(subprocess.run([o.gptvq, "eval", o.model, "--task", str(o.task), "--json", "--quiet", "--threads", str(o.threads)],
                                     check=True, capture_output=True, text=True).stdout)
    with serving(o, "--compute", "fp32", "--parallel", "4", "--ctx", "2048") as url:
        arguments = {"model": "x", "base_url": url + "/v1/completions", "tokenizer": o.model, "tokenizer_backend": "huggingface",
                     "num_concurrent": 4, "max_retries": 1}
        arguments["model"] = json.loads(subprocess.run(["curl", "-sS", url + "/v1/models"], check=True, capture_output=True, text=True).stdout)["data"][0]["id"]
        start = time.monotonic()
        results = lm_eval.simple_evaluate(model="local-completions", model_args=arguments, tasks=["gptvq_choices", "gptvq_generate"],
                                          bootstrap_iters=0, log_samples=True, task_manager=TaskManager(include_path=str(folder), include_defaults=False))
        seconds = time.monotonic() - start
    found = results["results"]
    choices, generated = found["gptvq_choices"], found["gptvq_generate"]
    version = "lm_eval " + lm_eval.__version__
    for key, name in (("accuracy", "acc"), ("accuracy_norm", "acc_norm")):
        require(abs(choices[name + ",none"] - ours[key]) < 1e-9, f"{name}: {choices[name + ',none']} through the server, {ours[key]} by gptvq eval")
        row(version, f"{name} on {ours['questions']} questions; ours: gptvq eval --task", f"{ours[key]:.4f} ± {ours[key + '_stderr']:.4f}",
            f"{choices[name + ',none']:.4f}")
    written = [(s["doc"]["question"], s["resps"][0][0]) for s in results["samples"]["gptvq_generate"]]
    model = package(o).Model.open(o.model, compute="fp32")
    same = sum(re.split(r"[.!?]", "".join(model.generate(question, max_tokens=16, temperature=0)))[0] == text for question, text in written)
    require(len(written) == ours["questions"] and same == len(written), f"{same} texts of {len(written)} are what Model.generate writes")
    row(version, f"texts of generate_until (exact_match {generated['exact_match,strip']:.4f}); peer: the same by Model.generate", len(written), same)
    note(f"ecosystem: lm_eval took {seconds:.1f} s")


if __name__ == "__main__":
    o = options()
    openai_client(o)
    lm_eval_client(o)
