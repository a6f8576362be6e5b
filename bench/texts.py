"""Texts of several kinds to judge a quantized model by, most of them unlike the text that it was calibrated on:

    python3 bench/texts.py OUT [--bytes 150000] [--calib-bytes 700000] [--seed 0] [--download]

writes OUT/prose.txt, dialogue.txt, code.txt, german.txt, mathematics.txt and markup.txt, the same bytes from the same versions of the packages, and texts of
the same kinds to calibrate on, from other files, OUT/calib/prose.txt and so on (prose: up to --calib-bytes). They come from Debian packages: what is installed
is read where it lies; with --download packages that are not are fetched by apt-get and unpacked, not installed.

    gptvq quantize MODEL -o PACKED --calib OUT/calib/prose.txt
    gptvq compare MODEL PACKED $(printf ' --text %s' OUT/*.txt) --ctx 512
"""
import argparse, glob, html, os, random, re, subprocess, sys, tempfile


def plain(page):
    """HTML without its marks and its head."""
    page = re.sub(r"(?is)<(script|style|head).*?</\1>", "", page)
    page = re.sub(r"(?i)<(p|br|h\d|li|div|tr|pre|dt|dd)\b[^>]*>", "\n", page)
    page = html.unescape(re.sub(r"<[^>]+>", "", page))
    return re.sub(r"\s*\n\s*\n\s*", "\n\n", re.sub(r"[ \t]+", " ", page)).strip()


def body(page):
    return re.sub(r"(?is)^.*<body[^>]*>|</body>.*$", "", page).strip()


def sayings(file):
    return re.sub(r"\n%\n", "\n\n", file).strip()


HANDBOOK = "usr/share/doc/debian-handbook/html"
KINDS = {  # name: package, files ({a,b} is a or b), which of them in the order of their names (first, step), what is done to each
    "prose": ("debian-handbook", f"{HANDBOOK}/en-US/sect.*.html", (3, 4), plain),
    "german": ("debian-handbook", f"{HANDBOOK}/de-DE/sect.*.html", (3, 4), plain),
    "dialogue": ("fortunes", "usr/share/games/fortunes/{humorists,people,pratchett,startrek}", (0, 1), sayings),
    "code": ("libstb-dev", "usr/include/stb/*.h", (0, 1), str.strip),
    "mathematics": ("maxima-doc", "usr/share/doc/maxima-doc/html/maxima_*.html", (0, 2), plain),
    "markup": ("maxima-doc", "usr/share/doc/maxima-doc/html/maxima_*.html", (1, 2), body),
}


def matching(folder, pattern):
    start, _, rest = pattern.partition("{")
    choices, _, end = rest.partition("}")
    return sorted(path for choice in choices.split(",") for path in glob.glob(f"{folder}/{start}{choice}{end}"))


def find(package, pattern, scratch, download):
    """The paths of a package's files, installed or unpacked."""
    found = matching("", pattern) or matching(f"{scratch}/{package}", pattern)
    if not found and download:
        folder = f"{scratch}/{package}"
        os.makedirs(folder)
        if subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, stderr=subprocess.DEVNULL).returncode != 0:
            sys.exit(f"texts.py: apt-get cannot download {package}: apt-get update")
        for file in glob.glob(f"{folder}/*.deb"):
            subprocess.run(["dpkg-deb", "-x", file, folder], check=True)
        found = matching(folder, pattern)
    return found or sys.exit(f"texts.py: {package} is not installed: apt-get install {package}, or --download")


def read(path):
    with open(path, encoding="utf-8", errors="ignore") as file:
        return file.read()


def write(path, text):
    """Up to the last whole line."""
    with open(path, "wb") as file:
        file.write(text[:text.rfind(b"\n") + 1])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out")
    p.add_argument("--bytes", type=int, default=150000, help="of each text; it ends with the last whole line")
    p.add_argument("--calib-bytes", type=int, default=700000, help="at most, of each text to calibrate on")
    p.add_argument("--seed", type=int, default=0, help="another order of the files")
    p.add_argument("--download", action="store_true", help="fetch packages that are not installed")
    a = p.parse_args()
    os.makedirs(f"{a.out}/calib", exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        taken = set()  # files that something is judged by
        found = {kind: find(package, pattern, scratch, a.download) for kind, (package, pattern, _, _) in KINDS.items()}
        for kind, (package, _, (first, step), tidy) in KINDS.items():
            paths = found[kind][first::step]
            random.Random(a.seed).shuffle(paths)
            text = b""
            for path in paths:
                if len(text) >= a.bytes:
                    break
                taken.add(path)
                part = tidy(read(path)).encode()
                text += (b"\n\n" if text and part else b"") + part
            if len(text) < a.bytes:
                print(f"texts.py: {kind}.txt has {len(text)} bytes: there is no more in {package}", file=sys.stderr)
            write(f"{a.out}/{kind}.txt", text[:a.bytes])
        for kind, (_, _, _, tidy) in KINDS.items():
            paths = [path for path in found[kind] if path not in taken]
            random.Random(a.seed).shuffle(paths)
            text = "\n\n".join(filter(None, (tidy(read(path)) for path in paths))).encode()
            write(f"{a.out}/calib/{kind}.txt", text[:a.calib_bytes])


if __name__ == "__main__":
    main()
