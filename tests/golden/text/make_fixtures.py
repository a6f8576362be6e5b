#!/usr/bin/env python3
"""Makes the tokenizer fixtures: lines.bin (the text), NAME.json (small tokenizers of every kind, trained here on made-up
text) and NAME.bin (what the `tokenizers` package makes of the text). Needs: pip install tokenizers (made with 0.23.3).

lines.bin  u32 count; per line: u32 size, bytes (not always well-formed UTF-8; may hold line breaks and NUL)
NAME.bin   u32 0x314b5447 ("GTK1"); u16 ids of the template before and after the text; u32 lines; per line: entry;
           u32 count and u32 CRC-32 of the ids of all lines joined by "\\n", without the template;
           u32 sequences of ids; per sequence: entry
entry      u16 count; u16 ids; u32 CRC-32 of the decoded text with special tokens; u32 without them
"""
import json
import os
import random
import struct
import unicodedata
import zlib

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

PHRASES = """The quick brown fox jumps over the lazy dog.|Once upon a time there was a little girl who lived by the sea.
Il était une fois une petite fille à l'école, où l'été fut très chaud.|Größe, Straße, Übermut und Fußgänger: „schön“!
El niño comió piñas y vio pingüinos mañana.|Zażółć gęślą jaźń.|Příliš žluťoučký kůň úpěl ďábelské ódy.
Đây là một câu tiếng Việt có nhiều dấu.|İstanbul'da ılık bir IŞIK.|Þetta er íslenska, ætíð góð.
Быстрая коричневая лиса прыгает через ленивую собаку.|Їжак ґанок єнот.|Ξεσκεπάζω την ψυχοφθόρα βδελυγμία, ὕδωρ.
שלום עולם, מה שלומך היום?|שָׁלוֹם|مرحبا بالعالم، كيف حالك؟|السَّلَامُ عَلَيْكُمْ|سلام دنیا می‌خواهم
नमस्ते दुनिया, आप कैसे हैं?|ক্ষমা করবেন বাংলা|ਸਤ ਸ੍ਰੀ ਅਕਾਲ|ગુજરાતી ભાષા|வணக்கம் உலகம்|తెలుగు భాష|ಕನ್ನಡ ನುಡಿ|മലയാളം ഭാഷ|සිංහල
สวัสดีชาวโลก ภาษาไทย|ສະບາຍດີ|မြန်မာဘာသာ|ភាសាខ្មែរ|བོད་སྐད་|ქართული ენა|Հայոց լեզու|አማርኛ ቋንቋ|ᏣᎳᎩ|ᐃᓄᒃᑎᑐᑦ|ᚠᚢᚦᚨᚱᚲ
你好，世界！今天天气怎么样？|繁體中文測試。|こんにちは世界。カタカナとひらがな|ｶﾞｷﾞｸﾞ ﾊﾟﾋﾟ|안녕하세요 세계|한국어 텍스트|한글|ＦＵＬＬ　ｗｉｄｔｈ １２３
ᠮᠣᠩᠭᠣᠯ|𐌰𐌱𐌲 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒜𝓁𝓅𝒽𝒶|𠀀𠀁𪛖|ﬁ ﬂ ﬃ ﷺ ㎏ ㍿ ℌ ℕ|x² + y³ = ½ ⅔ Ⅻ ⅷ ① ⑳ ₁₂
int main(void) { return a[i++] != 0x1F ? b : c; }|def f(x):\\n    return {k: v for k, v in x.items()}|#include <stdio.h>
std::vector<std::pair<int, float>> v{{1, 2.5e-3f}};|SELECT * FROM t WHERE a >= 3 AND b LIKE '%x_';|$ ls -la | grep "^d" > /dev/null 2>&1
https://example.com/path?q=1&r=%20#frag|user.name+tag@example.org|C:\\\\Users\\\\x\\\\file.txt|<div class="a">&amp;</div>|a_b-c.d/e
I'm you're he's they've we'll I'd don't CAN'T It'S 'S 'LL 'rE x'ſ K's ’s|''s '''t 'd'm|'sss 'tt 'mm 're've
👩‍👩‍👧‍👦 👨🏽‍💻 🏳️‍🌈 🇩🇪🇫🇷 1️⃣ ☺️ ☺ 🤷🏻‍♀️ 🧑‍🚀|😀😃😄 ❤️‍🔥 ❤|✈️ ⌚ ©®™ ♠♥|👍👍🏿 ok""".replace("\n", "|").split("|")
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", "\u00a0", "\u2003", "\u3000", "\u2028", "\u2029", "\u180e", "\u200b",
          "\u0085", "\u202f", "\u1680", "\v", "\f", "    ", "        "]
MARKS = "\u0301\u0300\u0327\u0323\u0308\u0345\u0338\u20dd\u05b0\u05bc\u0651\u064e\u093c\u094d\u3099\u309a\u0e38\u0f71\u0f74\u200d\u200c\ufe0f"
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|endoftext|>",
           "<|user|>", "<|assistant|>", "<|end|>", "[INST]", "[/INST]", "<0x0A>", "<0xE2>", "<mask>", "WORD", "Straße", "ＡＢ", "word",
           "<|im_st", "<|", "|>", "<s", "▁", "▁▁", "Ġ", "Ċ"]


def random_character(rng):
    """A code point that has been assigned since Unicode 3.2, so that any table of properties knows it."""
    while True:
        c = chr(rng.choice([rng.randrange(0x80, 0x250), rng.randrange(0x250, 0x2000), rng.randrange(0x2000, 0x3400),
                            rng.randrange(0x3400, 0xffff), rng.randrange(0x10300, 0x10450), rng.randrange(0x1d400, 0x1d800),
                            rng.randrange(0x20000, 0x2a6d6)]))
        old, new = unicodedata.ucd_3_2_0.category(c), unicodedata.category(c)
        if old == new and old not in ("Cn", "Cs", "Co"):
            return c


def make_line(rng, kind):
    word = lambda: rng.choice(rng.choice(PHRASES).split() or ["x"])
    if kind == 0:
        return " ".join(word() for _ in range(rng.randrange(1, 6)))
    if kind == 1:
        return "".join(rng.choice([word(), rng.choice(SPACES), rng.choice(SPACES)]) for _ in range(rng.randrange(1, 8)))
    if kind == 2:
        return "".join(rng.choice([rng.choice(SPECIAL), word(), rng.choice(SPACES), " "]) for _ in range(rng.randrange(1, 7)))
    if kind == 3:
        return "".join(random_character(rng) for _ in range(rng.randrange(1, 12)))
    if kind == 4:
        base = lambda: rng.choice([rng.choice("aeiouAEcnsqΑω"), random_character(rng), chr(rng.randrange(0x1100, 0x1113)),
                                   chr(rng.randrange(0x1161, 0x1176)), chr(rng.randrange(0x11a8, 0x11c3)), chr(rng.randrange(0xac00, 0xd7a4))])
        return "".join(base() + "".join(rng.choice(MARKS) for _ in range(rng.randrange(0, 4))) for _ in range(rng.randrange(1, 7)))
    if kind == 5:
        return "".join(rng.choice(["0123456789", "٠١٢٣", "०१२", "１２３", "½²Ⅷ", ".,", " ", "-+", "e%"])[0 if rng.random() < 0.2 else -1] if rng.random() < 0.3
                       else str(rng.randrange(10 ** rng.randrange(1, 9))) for _ in range(rng.randrange(1, 5)))
    if kind == 6:
        return "".join(chr(rng.randrange(0, 0x20)) if rng.random() < 0.5 else rng.choice(["\x7f", "\x80", "\x9f", "a", " ", word()])
                       for _ in range(rng.randrange(1, 10)))
    if kind == 7:
        return "".join(rng.choice("'’sStTmMdDlLrReEvV ſK") for _ in range(rng.randrange(1, 14)))
    if kind == 8:
        return "".join(rng.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«»—…“”。，、 \n\ra1") for _ in range(rng.randrange(1, 14)))
    return word() + word().upper() + word().title() + rng.choice(SPACES) + word()


def invalid(rng):
    """Bytes that are not well-formed UTF-8 (mostly)."""
    parts = [b"\xff", b"\xc0\x80", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xe2\x82", b"\xf0\x9f\x98",
             b"\xc3", b"\x80", b"\xbf\xbf", b"\xf8\x88\x80\x80\x80", b"\xe2\x28\xa1", b"\xf0\x28\x8c\xbc", b"ok", b" ", "é".encode(), "😀".encode(), b"<s>"]
    out = b"".join(rng.choice(parts) if rng.random() < 0.7 else bytes([rng.randrange(256)]) for _ in range(rng.randrange(1, 8)))
    return out


def make_lines():
    rng = random.Random(20240229)
    lines = [p.encode() for p in PHRASES] + [s.encode() for s in SPACES + SPECIAL] + [b"", b" ", b"\x00", b"a\x00b"]
    lines += [(" " * n + "x").encode() for n in range(0, 20)] + [("\n" * n + " y").encode() for n in range(0, 6)]
    for _ in range(170):
        for kind in range(10):
            lines.append(make_line(rng, kind).encode())
        lines.append(invalid(rng))
    lines += [b"a" * 600, b"ab" * 300, b" " * 400, b"\n" * 300, ("é" * 300).encode(), ("字" * 150).encode(), ("▁" * 50).encode(), b"abc " * 100,
              ("e\u0301\u0323" * 60).encode(), ("\u0323\u0301\u0327" * 50).encode(), b"1234567890" * 30, b"." * 300, b"\xff" * 60,
              ("supercalifragilistic" * 20).encode()]
    return lines


def corpus():
    rng = random.Random(7)
    for _ in range(1500):
        yield " ".join(rng.choice(rng.choice(PHRASES[:40] + PHRASES[-20:]).split() or ["x"]) for _ in range(12))
    for phrase in PHRASES * 3:
        yield phrase


def added(content, special=True, **flags):
    token = {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": not special, "special": special}
    token.update(flags)
    return token


def template(before, after, ids):
    item = lambda t: {"SpecialToken": {"id": t, "type_id": 0}}
    single = [item(t) for t in before] + [{"Sequence": {"id": "A", "type_id": 0}}] + [item(t) for t in after]
    return {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in before + after}}


def byte_level(vocab_size, split, normalizer, tokens, first=()):
    """A byte-level BPE tokenizer as JSON; `tokens` are added behind the vocabulary, `first` lead it."""
    t = Tokenizer(models.BPE())
    t.normalizer = normalizer
    t.pre_tokenizer = split
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=list(first), show_progress=False,
                                                        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    j = json.loads(t.to_str())
    return number(j, [added(f) for f in first] + tokens)


def number(j, tokens):
    next_id = len(j["model"]["vocab"])
    j["added_tokens"] = []
    for token in tokens:
        if token["content"] in j["model"]["vocab"]:
            i = j["model"]["vocab"][token["content"]]
        else:
            i, next_id = next_id, next_id + 1
        j["added_tokens"].append({"id": i, **token})
    return j


def byte_fallback(vocab_size, alphabet):
    """A SentencePiece-like BPE tokenizer as JSON: <unk>, <s>, </s>, 256 byte tokens, then the trained vocabulary."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=vocab_size, limit_alphabet=alphabet, show_progress=False))
    j = json.loads(t.to_str())
    front = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    trained = sorted(j["model"]["vocab"], key=j["model"]["vocab"].get)
    extra = [s for s in ("▁▁", "▁▁▁▁") if s not in trained]
    j["model"]["vocab"] = {s: i for i, s in enumerate(front + trained + extra)}
    j["model"]["merges"] += [["▁", "▁"], ["▁▁", "▁▁"]][2 - len(extra):]
    j["model"].update(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    return j


def tokenizers():
    split = lambda pattern, behavior="isolated", invert=False: pre_tokenizers.Split(__import__("tokenizers").Regex(pattern), behavior, invert)
    raw_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    j = byte_level(900, pre_tokenizers.Sequence([split(LLAMA3), raw_bytes]), None,
                   [added("<|begin_of_text|>"), added("<|end_of_text|>"), added("<|eot_id|>"), added("WORD", False, single_word=True)])
    ids = {t["content"]: t["id"] for t in j["added_tokens"]}
    j["model"]["ignore_merges"] = True
    j["post_processor"] = {"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
                                                            template(["<|begin_of_text|>"], [], ids)]}
    yield "llama3", j

    j = byte_level(800, pre_tokenizers.Sequence([split(QWEN2), raw_bytes]), normalizers.NFC(),
                   [added("<|endoftext|>"), added("<|im_start|>"), added("<|im_end|>"), added("<mask>", False, lstrip=True)])
    j["model"]["merges"] = [" ".join(m) for m in j["model"]["merges"]]  # the older way to write merges
    yield "qwen2", j

    yield "gpt2", byte_level(700, pre_tokenizers.ByteLevel(add_prefix_space=True), None, [], first=["<|endoftext|>"])
    yield "o200k", byte_level(600, pre_tokenizers.Sequence([split(O200K), raw_bytes]), None, [added("<|endoftext|>"), added("<|end|>", rstrip=True)])

    specials = [added("<unk>"), added("<s>"), added("</s>")]
    j = number(byte_fallback(800, 150), specials)
    j["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                                           {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    j["pre_tokenizer"] = None
    llama2_decoder = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                                                       {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    j["decoder"] = llama2_decoder
    j["post_processor"] = template(["<s>"], [], {"<s>": 1})
    yield "llama2", j

    j = number(byte_fallback(700, 120), specials + [added("[INST]"), added("[/INST]")])
    j["normalizer"] = None
    j["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    j["decoder"] = llama2_decoder
    j["post_processor"] = template(["<s>"], ["</s>"], {"<s>": 1, "</s>": 2})
    yield "mistral", j

    j = number(byte_fallback(600, 100), specials[:2] + [added("</s>", False, normalized=False, rstrip=True)] +
               [added(c, rstrip=True) for c in ("<|endoftext|>", "<|assistant|>", "<|user|>", "<|end|>")])
    j["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                                                           {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    j["pre_tokenizer"] = None
    j["decoder"] = llama2_decoder
    j["model"]["fuse_unk"] = True
    yield "phi3", j

    # The less common parts together: compatibility forms, lower case, accents off, digits and punctuation apart, words that
    # may be unknown, tokens that are normalized themselves.
    j = number(byte_fallback(500, 60), specials + [added("Straße", False), added("ＡＢ", normalized=True),
                                                   added("word", False, single_word=True, lstrip=True, rstrip=True), added("[INST]", False, normalized=False)])
    for b in range(256):
        if b % 3 == 0:
            j["model"]["vocab"][f"<unused{b}>"] = j["model"]["vocab"].pop(f"<0x{b:02X}>")
    j["model"]["fuse_unk"] = False
    j["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Strip", "strip_left": True, "strip_right": False}, {"type": "NFD"},
                                                           {"type": "StripAccents"}, {"type": "Lowercase"},
                                                           {"type": "Replace", "pattern": {"Regex": "[\"“”]|\\s+$"}, "content": "'"}]}
    j["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
                                                                {"type": "Digits", "individual_digits": True},
                                                                {"type": "Punctuation", "behavior": "MergedWithPrevious"}]}
    j["decoder"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    j["post_processor"] = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True, "add_prefix_space": False}
    yield "mixed", j

    # Words by white space; subwords that carry marks; no decoder.
    t = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=600, limit_alphabet=80, special_tokens=["<unk>"], show_progress=False,
                                                        continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    j = json.loads(t.to_str())
    j["normalizer"] = {"type": "NFKD"}
    j["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"}, {"type": "Split", "pattern": {"String": "ab"}, "behavior": "Removed", "invert": False},
        {"type": "Split", "pattern": {"Regex": "[\\p{L}]+"}, "behavior": "MergedWithNext", "invert": True},
        {"type": "Split", "pattern": {"Regex": "\\d{2}+|[[:punct:]]"}, "behavior": "Contiguous", "invert": False}, {"type": "Whitespace"}]}
    j["decoder"] = None
    yield "words", j

    # NUL wherever text may stand (InternLM2 has it as a token), beside what looks like it and what could stand for it.
    nul = "\0"
    j = number(byte_fallback(400, 60), specials + [added(f"b{nul}c"), added(f"{nul}\n", False, lstrip=True)])
    vocab = j["model"]["vocab"]
    for s in (nul, nul * 2, f"a{nul}", f"▁{nul}{nul}a", "\\", "\\u0000", f"\\{nul}", "\ufdd0", f"\ufdd0{nul}", f'"{nul}":', f'x{nul}"'):
        vocab.setdefault(s, len(vocab))
    for token in j["added_tokens"]:
        token["id"] = vocab.get(token["content"], token["id"] + len(vocab))
    pairs = [["a", nul], [nul, nul], ["\\", nul], ["\ufdd0", nul]]
    j["model"]["merges"] = pairs + j["model"]["merges"]
    j["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    j["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "\0b"}, "behavior": "Isolated", "invert": False}
    j["decoder"] = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                                                     {"type": "Replace", "pattern": {"String": nul * 2}, "content": f"{nul}2"}]}
    j["post_processor"] = template(["<s>"], [], {"<s>": 1})
    yield "nul", j

    # Gemma: spaces replaced before they split, tokens of line breaks and spaces that are not special, no space dropped at the end.
    j = number(byte_fallback(600, 100), specials + [added("<start_of_turn>"), added("\n\n", False, normalized=False), added("▁▁", False, normalized=False),
                                                    added("<unused0>", False, normalized=False)])
    j["model"]["fuse_unk"] = True
    j["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    j["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    j["decoder"] = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    j["post_processor"] = template(["<s>"], [], {"<s>": 1})
    yield "gemma", j


def entry(t, ids):
    crc = lambda skip: zlib.crc32(t.decode(ids, skip_special_tokens=skip).encode("utf-8", "surrogatepass"))
    return struct.pack(f"<H{len(ids)}HII", len(ids), *ids, crc(False), crc(True))


def expectation(t, j, lines, name):
    texts = [line.decode("utf-8", errors="replace") for line in lines]
    plain, full = t.encode("x", add_special_tokens=False).ids, t.encode("x").ids
    before = next((i for i in range(len(full)) if full[i:i + len(plain)] == plain), 0)
    out = [struct.pack("<IHHI", 0x314b5447, before, len(full) - before - len(plain), len(lines))]
    out += [entry(t, t.encode(text).ids) for text in texts]
    whole = t.encode("\n".join(texts), add_special_tokens=False).ids
    out.append(struct.pack("<II", len(whole), zlib.crc32(struct.pack(f"<{len(whole)}H", *whole))))
    rng = random.Random(name)
    size = t.get_vocab_size()
    sequences = [[rng.randrange(size if rng.random() < 0.5 else min(size, 270)) for _ in range(rng.randrange(0, 16))] for _ in range(150)]
    out.append(struct.pack("<I", len(sequences)) + b"".join(entry(t, s) for s in sequences))
    return b"".join(out)


def main():
    lines = make_lines()
    with open(os.path.join(HERE, "lines.bin"), "wb") as f:
        f.write(struct.pack("<I", len(lines)) + b"".join(struct.pack("<I", len(s)) + s for s in lines))
    example = os.path.join(HERE, "../../../examples/stories-4m/tokenizer.json")
    with open(example, encoding="utf-8") as f:
        everything = [("stories", json.load(f))]
    for name, j in everything + list(tokenizers()):
        data = json.dumps(j, ensure_ascii=False, separators=(",", ":"))
        t = Tokenizer.from_str(data)
        if name != "stories":
            with open(os.path.join(HERE, name + ".json"), "w", encoding="utf-8") as f:
                f.write(data + "\n")
        data = expectation(t, j, lines, name)
        with open(os.path.join(HERE, name + ".bin"), "wb") as f:
            f.write(data)
        print(f"{name}: {t.get_vocab_size()} tokens, {len(data)} bytes")
    print(f"{len(lines)} lines")


if __name__ == "__main__":
    main()
