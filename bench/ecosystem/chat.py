"""gptvq chat beside transformers: the same prompt from the model's template, and each token of a greedy answer the most likely one there too."""
import json
import subprocess

from common import need, options, package, require, row, run, serving

SYSTEM, ASKED = "Answer briefly.", "Why is the sky blue?"
TALK = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "My name is Bob."}, {"role": "assistant", "content": "Hello Bob!"},
        {"role": "user", "content": "  What is my name? <tag> & \"quotes\"\n\n"}]
TOKENS = 48


def ids_of(tokenizer, messages):
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


def main():
    o = options()
    if not need("torch", "transformers", "numpy"):
        return
    package(o)  # for packed folders
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(o.model)
    one = [TALK[0], {"role": "user", "content": ASKED}]
    said = json.loads(run(o, "chat", o.model, "--system", SYSTEM, "-p", ASKED, "--temp", "0", "-n", TOKENS, "--compute", "fp32", "--json", "--quiet"))
    require(said["prompt_ids"] == ids_of(tokenizer, one), "another prompt than transformers makes")
    model = transformers.AutoModelForCausalLM.from_pretrained(o.model, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([said["prompt_ids"] + said["ids"]])).logits[0, len(said["prompt_ids"]) - 1:-1]
    chosen = logits.gather(1, torch.tensor(said["ids"])[:, None])[:, 0]
    behind = float((logits.max(1).values - chosen).max())
    require(len(said["ids"]) > 0 and behind < 1e-3 * float(logits.abs().max()), f"a token that is {behind} behind the most likely one")
    same = int((logits.argmax(1) == torch.tensor(said["ids"])).sum())
    version = "transformers " + transformers.__version__
    row(version, "gptvq chat: tokens of the prompt; peer: apply_chat_template", len(said["prompt_ids"]), len(ids_of(tokenizer, one)))
    row(version, "gptvq chat: tokens of a greedy answer; peer: of these the most likely ones", len(said["ids"]), same)
    # several turns, by line and through the server
    with serving(o, "--parallel", "1", "--ctx", "1024") as url:
        body = json.dumps({"messages": TALK, "max_tokens": 1})
        done = subprocess.run(["curl", "-sS", url + "/v1/chat/completions", "-H", "Content-Type: application/json", "-d", body], capture_output=True, text=True, check=True)
        counted = json.loads(done.stdout)["usage"]["prompt_tokens"]
    wanted = len(ids_of(tokenizer, TALK))
    require(counted == wanted, f"{counted} tokens of a conversation, {wanted} in transformers")
    row(version, "/v1/chat/completions: tokens of four messages; peer: apply_chat_template", counted, wanted)


if __name__ == "__main__":
    main()
