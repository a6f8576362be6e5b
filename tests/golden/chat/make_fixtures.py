#!/usr/bin/env python3
"""Makes conversations.json, expected.json and snippets.json: what transformers' apply_chat_template makes of templates/*.jinja and
of the small templates in snippets.py. The templates are written for this test, in the formats of the models they are named after;
none is copied.

    python3 tests/golden/chat/make_fixtures.py      # transformers 5.24, jinja2 3.1.6

expected.json: template -> conversation -> text, or {"error": message of raise_exception, or null for any other failure}.
snippets.json: {"variables": ..., "snippets": [[source, text or such an object], ...]}. The time is 2025-07-28 00:00 UTC everywhere.
"""
import datetime
import json
import pathlib
import sys

import jinja2
import tokenizers
import transformers
import transformers.utils.chat_template_utils as templates

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
from snippets import SNIPPETS, VARIABLES  # noqa: E402


class Fixed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2025, 7, 28)


templates.datetime = Fixed


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def system(content):
    return {"role": "system", "content": content}


def call(name, arguments):
    return {"id": name[:4] + "56789", "type": "function", "function": {"name": name, "arguments": arguments}}


def result(name, content):
    return {"role": "tool", "name": name, "tool_call_id": name[:4] + "56789", "content": content}


CITY = {"type": "string", "description": "The \"city\" <ü>"}
WEATHER = {
    "name": "get_weather",
    "description": "Weather\nof a city",
    "parameters": {
        "type": "object",
        "properties": {"city": CITY, "days": {"type": ["integer", "null"]}, "unit": {"enum": ["C", "F"]}},
        "required": ["city"],
    },
}
TOOLS = [
    {"type": "function", "function": WEATHER},
    {"type": "function", "function": {"name": "noop", "description": "Nothing", "parameters": {"type": "object", "properties": {}}}},
]
# name -> what differs from {"messages": [], "add_generation_prompt": true}
CONVERSATIONS = {
    "single": {"messages": [user("Hello")]},
    "no-prompt": {"messages": [user("Hello")], "add_generation_prompt": False},
    "system": {"messages": [system("You are terse."), user("Hi")]},
    "turns": {"messages": [user("  Hi  \n"), assistant(" Hello!\n"), user("How?"), assistant("Fine."), user("Good")]},
    "system-turns": {"messages": [system("S\n"), user("a"), assistant("b"), user("c")], "variables": {"date_string": "1 May 2025"}},
    "ends-assistant": {"messages": [user("a"), assistant("b")], "add_generation_prompt": False},
    "continue": {
        "messages": [user("a"), assistant("The answer is ")],
        "add_generation_prompt": False,
        "continue_final_message": True,
    },
    "unicode": {"messages": [system("Größe\u00a0"), user("日本語 😀 <b>&\"'</b>\t\\n"), assistant("ΣΊΣΥΦΟΣ"), user("é")]},
    "empty": {"messages": [system(""), user("")]},
    "parts": {"messages": [user([{"type": "text", "text": "one "}, {"type": "image"}, {"type": "text", "text": " two"}])]},
    "tools": {"messages": [user("Weather in Paris?")], "tools": TOOLS},
    "tool-call": {
        "messages": [
            system("Use tools."),
            user("Weather?"),
            assistant(None, tool_calls=[call("get_weather", {"city": "Köln", "days": None})]),
            result("get_weather", "{\"t\": 21}"),
        ],
        "tools": TOOLS,
    },
    "tool-calls": {
        "messages": [
            user("Weather?"),
            assistant("", tool_calls=[call("get_weather", {"city": "Rome"}), call("noop", {})]),
            result("get_weather", "rain"),
            result("noop", "done"),
            assistant("It rains."),
            user("Thanks"),
        ],
    },
    "thinking": {"messages": [user("q"), assistant("<think>\nhm\n</think>\n\nanswer"), user("r"), assistant("s", reasoning="so")]},
    "no-thinking": {"messages": [user("q"), assistant("<think>\nhm\n</think>\n\na"), user("r")], "variables": {"enable_thinking": False}},
    "documents": {
        "messages": [user("Cite.")],
        "variables": {"documents": [{"title": "the title", "text": "line\nline"}], "controls": {"length": "short"}},
    },
    "order": {"messages": [user("a"), user("b")]},
    "odd-role": {"messages": [user("a"), {"role": "narrator", "content": "x"}]},
    "no-content": {"messages": [{"role": "user"}]},
}


def outcome(render):
    try:
        return render()
    except jinja2.exceptions.TemplateError as error:
        return {"error": str(error) if type(error) is jinja2.exceptions.TemplateError else None}
    except Exception:
        return {"error": None}


def dump(name, value, indent):
    (HERE / name).write_text(json.dumps(value, ensure_ascii=False, indent=indent, separators=None if indent else (",", ":")) + "\n")


def main():
    model = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, []))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    expected = {}
    for file in sorted((HERE / "templates").glob("*.jinja")):
        source = file.read_text()
        results = expected[file.stem] = {}
        for name, one in CONVERSATIONS.items():
            one = {"add_generation_prompt": True, **one}
            messages, tools, variables = one.pop("messages"), one.pop("tools", None), one.pop("variables", {})
            results[name] = outcome(
                lambda: tokenizer.apply_chat_template(
                    messages, tools=tools, chat_template=source, tokenize=False, **one, **variables
                )
            )
    dump("conversations.json", CONVERSATIONS, None)
    dump("expected.json", expected, 0)
    snippets = []
    for source in SNIPPETS:
        render = lambda: templates.render_jinja_template([[user("x")]], chat_template=source, **VARIABLES)[0][0]
        snippets.append([source, outcome(render)])
    dump("snippets.json", {"variables": VARIABLES, "snippets": snippets}, 0)


main()
