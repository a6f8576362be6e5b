"""gptvq serve under load: one client and many, beside llama.cpp's server in turns."""
import concurrent.futures
import json
import statistics
import time
import urllib.request

from common import options, row, serving, serving_peer

PROMPT = ("Once upon a time there was a little girl who lived in a small house near the forest. Every day she went out to play with "
          "her dog, and they ran and jumped until")


def ask(url, number, tokens):
    body = {"prompt": f"{number}: {PROMPT}", "max_tokens": tokens, "temperature": 0.8, "seed": number, "ignore_eos": True}
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=3600) as reply:
        return json.load(reply)["usage"]["completion_tokens"]


def throughput(url, clients, tokens):
    ask(url, 0, 4)
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        made = sum(pool.map(lambda i: ask(url, i, tokens), range(clients)))
    return made / (time.monotonic() - start)


def load(o, rounds=3):
    """Tokens per second of one client and of many, ours and the peers' in turns: medians of three rounds."""
    peers = [p for p in o.peer.split(",") if p]
    ours = {1: [], o.clients: []}
    theirs = {peer: {1: [], o.clients: []} for peer in peers}
    for _ in range(rounds):
        with serving(o, "--parallel", str(o.clients), "--ctx", "512") as url:
            for clients in ours:
                ours[clients].append(throughput(url, clients, o.tokens))
        for peer in peers:
            with serving_peer(o, peer) as url:
                for clients in ours:
                    theirs[peer][clients].append(throughput(url, clients, o.tokens))
    for clients in ours:
        mine = statistics.median(ours[clients])
        for peer in peers or [""]:
            other = f"{statistics.median(theirs[peer][clients]):.1f} tokens/s ({peer.rsplit('/', 1)[-1]})" if peer else ""
            row("load", f"{clients} client{'s' * (clients > 1)} of {o.tokens} tokens", f"{mine:.1f} tokens/s", other)


if __name__ == "__main__":
    load(options())
