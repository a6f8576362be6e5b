"""Small templates, construct by construct; make_fixtures.py renders them with jinja2 as transformers sets it up."""

VARIABLES = {
    "s": "Hello, World",
    "u": "Grüße ΣΊΣΥΦΟΣ ß ǆ ﬁn 日本 😀",
    "w": " \t padded\u00a0\n",
    "lines": "one\n\n  two\r\nthree\n",
    "n": 7,
    "x": 2.5,
    "e": "",
    "l": [3, 1, 2],
    "d": {"b": 1, "a": [1, 2.0, None, True], "items": "shadowed", "C": "q\"uo'te\n"},
    "nul": None,
    "yes": True,
    "users": [
        {"name": "bob", "age": 30, "admin": True},
        {"name": "Alice", "age": 25, "admin": False},
        {"name": "carol", "age": 30, "tags": ["x", "y"]},
    ],
    "deep": {"k": {"list": [{"z": 1}, {"z": 2}]}},
    "call": {"name": "f", "arguments": {"a": 1, "b": "ü<&>'\"\\/\u0007\u007f\u2028", "c": 1e100, "d": 0.1, "e": -0.0}},
}

# one in each line
LINES = r'''plain {text} } {
{{ s }}{{ s.size }}|{{ missing }}|
{{ 'a' "b" 'c' }}
{{ "\n\t\x41\u00e9\U0001F600\101\q\'" }}
{{ 1 }}{{ 1.0 }}{{ 1e3 }}{{ 1_000 }}{{ 1.5e-7 }}{{ 0.1 + 0.2 }}{{ 1e16 }}{{ 123456789012345680.0 }}{{ 1e22 }}{{ 5e-324 }}
{{ true }}{{ True }}{{ none }}{{ None }}{{ false }}
{{ [1, 'a', 2.5, none, true, [], {}, (1,), (1, 2), ()] }}
{{ {'a': 1, "b": 'it\'s', 3: [1], none: "\"'"} }}
{{ "tab\tnl\n\x00\x7f é \u200b \U0001F600 \\" ~ ["tab\tnl\n\x00\x7f é \u200b \U0001F600 \\"] }}
{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }}
{{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }} {{ 'a' * 3 }} {{ [1] * 2 }} {{ 'a' + 'b' }} {{ [1] + [2] }} {{ (1,) + (2,) }} {{ true + 1 }} {{ - 3 }} {{ +4 }} {{ -true }}
{{ 1 ~ 'a' ~ none ~ [1] ~ missing ~ 2.0 }}
{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 1 == 1.0 == true }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 'Z' < 'a' }} {{ 'é' > 'z' }} {{ 1 != 2 }} {{ 2 >= 2 }}
{{ 'ell' in s }} {{ 'x' not in s }} {{ 1 in l }} {{ 'b' in d }} {{ 5 not in l }} {{ none in [none] }} {{ '' in s }} {{ 3 in missing }}
{{ 1 and 0 or 'x' }} {{ not 1 }} {{ not '' and 3 }} {{ [] or 'empty' }} {{ '' and missing.x }}
{{ 'yes' if yes else 'no' }}{{ 'x' if e }}|{{ 1 if 0 else 2 if 0 else 3 }}
{{ s[0] }}{{ s[-1] }}{{ s[99] }}|{{ s[1:4] }}|{{ s[::-1] }}|{{ s[:-7] }}|{{ s[-5:] }}|{{ s[::2] }}|{{ s[10:2] }}|{{ s[5:1:-2] }}|{{ s[-99:3] }}|{{ s[99::-1] }}
{{ u[0:5] }}|{{ u[-1] }}|{{ u[-2:] }}|{{ u | length }}|{{ u[::-1] }}
{{ l[0] }}{{ l[-1] }}{{ l[1:] }}{{ l[::-1] }}{{ l[9] }}|{{ l[:0] }}|{{ l['x'] }}|{{ (1,2,3)[1:] }}|{{ l.0 }}
{{ d.b }}{{ d['b'] }}{{ d.missing }}|{{ d['items'] }}|{{ d.get('zz') }}|{{ d.get('zz', 5) }}|{{ d.get('b') }}
{{ d.items() | list }}{{ d.keys() | list }}{{ d.values() | list }}{{ d.items() | length }}
{{ d['keys'] is defined }} {{ d.nokey is defined }} {{ d.get is defined }} {{ d['get'] is callable }}
{{ deep.k.list[1].z }}{{ deep['k']['list'][0]['z'] }}{{ deep.k.list[-1]['z'] }}
{% for i in l %}{{ i }}{% if not loop.last %}, {% endif %}{% endfor %}
{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }};{% endfor %}
{% for i in [] %}x{% else %}none{% endfor %}{% for i in missing %}x{% else %}undefined{% endfor %}
{% for i in l if i > 1 %}{{ i }}:{{ loop.index }}/{{ loop.length }} {% else %}nothing{% endfor %}
{% for i in l if i > 9 %}{{ i }}{% else %}nothing{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}
{% for a, b in [(1, 2), [3, 4]] %}{{ a + b }} {% endfor %}{% for c in 'añb' %}{{ c }}.{% endfor %}
{% for (a, b) in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}
{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(5, 1, -2) %}{{ i }}{% endfor %}{{ range(4) | list }}{{ range(2, 4)[1] }}
{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for i in l %}{% for j in l %}{% if j == 1 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{{ loop.index }}{% endfor %}
{% for i in l %}{{ loop.cycle('a', 'b') }}{{ loop.changed(i > 1) }}{% endfor %}
{% set a = 1 %}{{ a }}{% for i in l %}{% set a = i %}{{ a }}{% endfor %}{{ a }}
{% if true %}{% set a = 5 %}{% endif %}{{ a }}{% if false %}{% set b = 1 %}{% endif %}{{ b }}|{{ b is defined }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c = 1, 2 %}{{ c }}{% set (p, q) = [3, 4] %}{{ p }}{{ q }}
{% set ns = namespace(x=1, y=[]) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.z }}|{{ ns['x'] }}
{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{% set ns.a, ns.b = 5, 6 %}{{ ns.a }}{{ ns.b }}
{% set block %}x{{ s }}y{% endset %}[{{ block }}]{% set up | upper | replace('A', 'b') %}abc{% endset %}{{ up }}
{% set ns = namespace() %}{% set ns.body %}in{% endset %}{{ ns.body }}
{% macro m(a, b='def') %}<{{ a }}:{{ b }}>{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(b=3, a=4) }}{{ m() }}
{% macro m(a, b=a ~ '!') %}{{ b }}{% endmacro %}{{ m('q') }}{{ m.name }}
{% macro v(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ v(1, 2, 3, k=4) }}
{% macro fact(k) %}{% if k <= 1 %}1{% else %}{{ k * (fact(k - 1) | int) }}{% endif %}{% endmacro %}{{ fact(6) }}
{% macro wrap() %}[{{ caller() }}]{% endmacro %}{% call wrap() %}inside {{ s }}{% endcall %}
{% macro each(xs) %}{% for x in xs %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(i) each(l) %}<{{ i }}>{% endcall %}
{% set g = 1 %}{% macro show() %}{{ g }}{% endmacro %}{% set g = 2 %}{{ show() }}
{% for i in l %}{% macro inner() %}{{ i }}{{ loop.index }}{% endmacro %}{{ inner() }}{% endfor %}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}|
{% filter upper %}abc{{ s }}{% endfilter %}{% filter replace('b', 'X') | upper %}abc{% endfilter %}
{% generation %}gen{% set zz = 1 %}{% endgeneration %}{{ zz }}|
{% raw %}{{ not }} {% if %}{% endraw %}|{%- raw -%}  x  {%- endraw -%}  |
{% if 0 %}a{% elif 1 %}b{% else %}c{% endif %}{% if 0 %}a{% elif 0 %}b{% else %}c{% endif %}
{% print 1, 'a' %}{% if (1, 2) %}t{% endif %}
{{ '{{' }}{{ '%}' }}{{ "}}" }}
{{ {'a': {'b': 1}} }}{{{'a': 1}}}
{{ s | upper }}{{ s | lower }}{{ u | upper }}|{{ u | lower }}|{{ u | title }}|{{ u | capitalize }}
{{ 'hello wORLD-foo(bar' | title }}|{{ 'hello wORLD-foo' | capitalize }}|{{ "it's o'neil x1y" | title }}
{{ u.upper() }}|{{ u.lower() }}|{{ u.title() }}|{{ u.capitalize() }}|{{ u.swapcase() }}|{{ "they're bill's" .title() }}
[{{ w | trim }}][{{ w.strip() }}][{{ w.lstrip() }}][{{ w.rstrip() }}][{{ 'xxaxx' | trim('x') }}][{{ 'xyaxy'.strip('yx') }}][{{ 'éaé'.lstrip('é') }}][{{ 'ab'.rstrip('') }}]
{{ 'a,b,,c'.split(',') }}{{ 'a,b,,c'.split(',', 1) }}{{ ' a  b '.split() }}{{ ' a b  c '.split(none, 1) }}{{ 'a,b,c'.rsplit(',', 1) }}{{ ' a b  c '.rsplit(none, 1) }}{{ ''.split() }}{{ ''.split(',') }}{{ '\x1ca\u3000b'.split() }}{{ 'a<|b|>c'.split('<|b|>')[-1] }}
{{ lines.splitlines() }}{{ lines.splitlines(true) }}{{ 'a\x0bb\x85c\u2028d'.splitlines() }}{{ ''.splitlines() }}
{{ s.startswith('Hell') }}{{ s.startswith(('x', 'H')) }}{{ s.endswith('ld') }}{{ s.startswith('e', 1) }}{{ s.endswith('l', 0, -1) }}{{ ''.startswith('') }}
{{ s.find('o') }}{{ s.find('zz') }}{{ s.rfind('o') }}{{ s.index('W') }}{{ s.count('l') }}{{ s.find('o', 5) }}{{ u.find('日') }}{{ s.rfind('') }}{{ s.count('') }}
{{ s.replace('l', 'L') }}{{ s.replace('l', 'L', 1) }}{{ s | replace('o', '0') }}{{ s | replace('o', '0', 1) }}{{ 'abc'.replace('', '-') }}{{ 'ab'.replace('', '-', 2) }}{{ 123 | replace(2, 'x') }}
{{ ', '.join(['a', 'b']) }}{{ ''.join([]) }}{{ '-'.join('abc') }}{{ l | join }}{{ l | join(', ') }}{{ users | join(';', attribute='name') }}{{ d | join(',') }}
{{ 'a-b-c'.partition('-') }}{{ 'abc'.partition('-') }}{{ 'a-b-c'.rpartition('-') }}{{ 'abc'.rpartition('-') }}{{ 'prefix-x'.removeprefix('prefix-') }}{{ 'x.py'.removesuffix('.py') }}
{{ 'ab'.ljust(4) }}|{{ 'ab'.rjust(4, '.') }}|{{ 'ABC'.isupper() }}{{ 'abc1'.islower() }}{{ '12'.isdigit() }}{{ ' \n'.isspace() }}{{ 'ab'.isalpha() }}{{ 'a1'.isalnum() }}{{ ''.isdigit() }}
{{ 'é'.isalpha() }}{{ '日1'.isalnum() }}{{ u is upper }}{{ 'abc' is lower }}
{{ '{} and {}'.format(1, 'x') }}{{ '{1}{0}'.format('a', 'b') }}{{ '{a}{{}}'.format(a=3) }}{{ '%s-%d-%%' % ('a', 3) }}{{ '%s' % 5 }}{{ '%s %s' | format('x', 1) }}{{ '%.2f' % 3.14159 }}
{{ d | tojson }}|{{ d | tojson(indent=2) }}|{{ [] | tojson(indent=2) }}{{ {} | tojson(indent=4) }}{{ [[]] | tojson(indent=1) }}
{{ call | tojson }}|{{ call | tojson(ensure_ascii=true) }}|{{ u | tojson }}|{{ u | tojson(true) }}
{{ d | tojson(sort_keys=true) }}{{ {'b': 1, 'a': {'d': 1, 'c': 2}} | tojson(sort_keys=true, indent=4) }}{{ {'a': 1, 'b': [1, 2]} | tojson(separators=(',', ':')) }}{{ {'a': 1} | tojson(indent=2, separators=(',', ': ')) }}
{{ 1.0 | tojson }}{{ 1e100 | tojson }}{{ none | tojson }}{{ true | tojson }}{{ 'a' | tojson }}{{ (1, 2) | tojson }}{{ {1: 2, none: 3, true: 4, 2.5: 5} | tojson }}
{{ "a'b\"c</script>" | tojson }}{{ '<' | tojson | safe }}{{ [1, 2] | tojson(indent='--') }}{{ [1] | tojson(indent=0) }}
{{ l | length }}{{ s | length }}{{ d | count }}{{ '' | length }}{{ missing | length }}
{{ missing | default('d') }}{{ none | default('d') }}{{ none | default('d', true) }}{{ '' | d('x', boolean=true) }}{{ 0 | default(5, true) }}
{{ l | first }}{{ l | last }}{{ [] | first }}|{{ s | first }}{{ s | last }}{{ d | first }}{{ (l | first) is defined }}
{{ s | list }}{{ d | list }}{{ (1, 2) | list }}{{ d | items | list }}{{ missing | items | list }}{{ missing | list }}
{{ users | map(attribute='name') | list }}{{ ['a', 'b'] | map('upper') | list }}{{ ['ab'] | map('replace', 'a', 'x') | join }}{{ users | map(attribute='tags', default='-') | list }}{{ users | map(attribute='tags.0') | list | tojson if false else 'skip' }}{{ none | map('upper') | list }}
{{ users | selectattr('admin') | map(attribute='name') | list }}{{ users | selectattr('age', 'equalto', 30) | list | length }}{{ users | rejectattr('admin') | map(attribute='name') | join(',') }}{{ users | selectattr('name', 'in', ['bob']) | list | length }}{{ users | selectattr('admin', 'defined') | list | length }}{{ users | selectattr('age', '>', 25) | map(attribute='name') | list }}
{{ [1, 2, 3, 4] | select('odd') | list }}{{ [1, 2, 3, 4] | reject('even') | list }}{{ [0, 1, ''] | select | list }}{{ ['a', 1] | select('string') | list }}{{ [1, 5] | select('greaterthan', 2) | list }}{{ [1, 5] | select('==', 5) | list }}{{ [3, 6, 7] | select('divisibleby', 3) | list }}
{% if users | selectattr('admin', 'equalto', 99) %}generators are true{% endif %}{% set it = l | map('string') %}{{ it | list }}{{ it | list }}
{{ l | sort }}{{ ['b', 'A', 'c'] | sort }}{{ ['b', 'A', 'c'] | sort(case_sensitive=true) }}{{ l | sort(reverse=true) }}{{ users | sort(attribute='age') | map(attribute='name') | list }}{{ users | sort(attribute='age,name') | map(attribute='name') | list }}{{ users | sort(attribute='age', reverse=true) | map(attribute='name') | list }}
{{ d | dictsort }}{{ d | dictsort(true) }}{{ {'a': 2, 'b': 1} | dictsort(by='value') }}{{ {'a': 2, 'b': 1} | dictsort(reverse=true) }}
{{ [1, 2, 1, 'a', 'A'] | unique | list }}{{ users | unique(attribute='age') | map(attribute='name') | list }}
{{ l | reverse | list }}{{ s | reverse }}{{ d | reverse | list }}{{ l | min }}{{ l | max }}{{ l | sum }}{{ users | sum(attribute='age') }}{{ users | max(attribute='age') | tojson }}{{ [] | min }}
{{ '42' | int }}{{ '4x' | int }}{{ '4x' | int(9) }}{{ 4.9 | int }}{{ ' 12 ' | int }}{{ '3.7' | int }}{{ '-5' | int }}{{ none | int }}{{ true | int }}{{ '1.5' | float }}{{ 'x' | float }}{{ 3 | float }}{{ '1e3' | float }}{{ '1_0' | int }}
{{ 2.5 | round }}{{ 3.5 | round }}{{ 2.567 | round(2) }}{{ 42.55 | round(1, 'floor') }}{{ 42.51 | round(1, 'ceil') }}{{ 7 | round }}{{ -3 | abs }}{{ -2.5 | abs }}{{ 2.675 | round(2) }}{{ 0.5 | round | int }}
{{ lines | indent }}|{{ lines | indent(2, true) }}|{{ lines | indent(2, blank=true) }}|{{ 'a\nb' | indent('> ') }}|{{ 'a\nb' | indent(width=3, first=true) }}
{{ '<a href="x">\'&' | e }}{{ '<' | escape }}{{ 5 | string }}{{ [1] | string }}{{ none | string }}{{ '<b>' | safe }}
{{ [1, 2, 3, 4, 5] | batch(2) | list }}{{ [1, 2, 3] | batch(2, 'x') | list }}{{ {'a': 1} | attr('a') }}|{{ s | attr('upper') is callable }}
{{ 1 is number }}{{ 1.5 is float }}{{ 1 is integer }}{{ true is integer }}{{ true is number }}{{ true is boolean }}{{ 'a' is string }}{{ l is iterable }}{{ l is sequence }}{{ d is mapping }}{{ d is sequence }}{{ s is iterable }}{{ 1 is iterable }}{{ none is none }}{{ missing is undefined }}{{ d is iterable }}{{ 1 is sequence }}{{ missing is iterable }}{{ d.items() is sequence }}{{ d.items() is iterable }}{{ d.items() is mapping }}
{{ 2 is even }}{{ 3 is odd }}{{ 4 is divisibleby 2 }}{{ 4 is divisibleby(3) }}{{ 1 is eq 1 }}{{ 1 is ne 1 }}{{ 2 is gt 1 }}{{ 2 is lt(1) }}{{ 1 is in [1, 2] }}{{ 1 is not in [1, 2] }}{{ true is true }}{{ 1 is true }}{{ false is false }}{{ none is sameas none }}{{ x is not defined }}{{ missing is not defined }}{{ 'a' is not string and 1 }}{{ 1 is equalto 1 or 2 }}
{{ not missing is defined }}{{ s is defined and s is string }}{{ 'x' if missing is defined else 'y' }}{{ (s is string) ~ 'z' }}{{ l | length is equalto 3 }}
{{ dict(a=1, b=2) }}{{ dict([('x', 1)]) }}{{ dict({'a': 1}, b=2) }}{{ dict() }}
{{ strftime_now('%d %b %Y') }}|{{ strftime_now("%Y-%m-%d %H:%M") }}|{{ strftime_now is defined }}
{{ missing == other_missing }}{{ missing == none }}{{ missing != 1 }}{{ [missing] | length }}{{ missing in [missing] }}{{ missing ~ 'x' }}{{ missing | upper }}{{ missing | trim }}{{ missing | first is undefined }}{{ missing | join(',') }}{{ missing | reverse | list }}
{{ [1, 2, 3].index(2) }}{{ [1, 1].count(1) }}{{ (1, 2).index(2) }}{{ d.copy() == d }}{{ [1, [2, {'a': 3}]] == [1, [2, {'a': 3}]] }}{{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }}{{ (1,) == [1] }}{{ 1 == '1' }}{{ none == false }}{{ true == 1 }}
{{ range(3) == range(3) }}{{ [] == () }}{{ 'a' == 'a' }}{{ {} | length }}{{ {'a': none}.a is none }}
{{ m(*[1, 2]) if false else 'spread' }}{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3, 'b': 4}) }}{{ m(5, *[6]) }}{{ m(b=7, *[8]) }}
{{ ((((1)))) }}{{ [ ] }}{{ [1, ] }}{{ (1, ) }}{{ {'a': 1, } }}{{ s.upper().lower()[0] }}{{ (s | upper)[0] }}{{ -1 | abs }}{{ - 1 | string ~ 'x' }}
{{ users[0].name ~ users[1]['name'] }}{{ users[0]['name'][0] | upper }}{{ (users | first).name }}{{ users[-1].tags[0] }}
{%- for m in users %}{%- if loop.first %}first {{ m.name }}{% elif loop.last %} last {{ m.name }}{% else %} mid{% endif %}{%- endfor %}
{{ 'a' if 0 else 'b' ~ 'c' }}{{ ('a' if 0 else 'b') ~ 'c' }}{{ 1 + 1 ~ 2 }}{{ 2 ~ 1 + 1 }}{{ 10 // 3 * 2 ~ 1 }}
{% set x = 1 %}{% if x == 1 %}{% set x = 2 %}{% endif %}{{ x }}{% set x = x + 1 %}{{ x }}
{% for x in [1, 2] %}{% for x in [8, 9] %}{{ x }}{% endfor %}{{ x }}{% endfor %}{{ x }}
{% for user in users %}{% set loop_messages = user %}{{ loop_messages.name }}{% endfor %}{{ loop_messages is defined }}{{ loop is defined }}
{{ loop }}|{% for i in [1] %}{% endfor %}{{ i }}|
{% set q = [] %}{% set q = q + [1] %}{% for i in [2, 3] %}{% set q = q + [i] %}{% endfor %}{{ q }}
{{ s[:5] | upper }}{{ s[l[1]] }}{{ s[missing_index | default(0)] }}{{ {'k': 'v'}['k'] }}{{ [10, 20][true] }}
{{ 'abc' | select('in', 'ab') | list }}{{ 'a b' | wordcount if false else 'x' }}{{ none is none and none is not string }}
{{ 'text' is string and 'text'.strip() != '' }}{{ {'role': 'user'}.role == 'user' }}{{ 'user' != 'user' or not false }}
{{ '%s' % [1, 2] }}{{ '%s' % {'a': 1} }}{{ '%r' % 'x' }}{{ '%s' % none }}{{ 'x' % {} }}{{ 'x' % [1, 2] }}{{ '%d' % 3.9 }}
{{ 9223372036854775807 }}{{ 1 / 3 }}{{ 100 * 1.1 }}{{ 1e5 }}{{ 3.0 * 2 }}{{ 7 // 2.0 }}{{ 1e15 }}{{ 0.0001 }}{{ 0.00001 }}{{ 1.0e300 * 1e10 }}{{ -0.0 }}
{{ 'ß' | upper }}{{ 'ŉ' | upper }}{{ 'ᾳ' | upper }}{{ 'ᾳ'.title() }}{{ 'İ' | lower | length }}{{ 'ΑΣ ΑΣΑ Σ' | lower }}{{ 'ǆ'.capitalize() }}{{ 'ﬁ'.title() }}
{{ 'a\r\nb' | length }}{{ '\u00e9' == 'é' }}{{ 'é' | length }}{{ 'é' | tojson(ensure_ascii=true) }}{{ '😀' | tojson(ensure_ascii=true) }}
{{ raise_exception('plain message') }}
{% if true %}{{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}{% endif %}
{{ raise_exception('n = ' ~ n ~ ' ü') }}
{{ missing.x }}
{{ missing['x'] }}
{{ missing() }}
{{ missing + 1 }}
{{ 'a' + missing }}
{{ missing < 1 }}
{{ -missing }}
{{ missing | int }}
{{ missing | tojson }}
{{ nul.x.y }}
{{ nul.x }}|{{ nul['x'] }}|{{ n.x }}|{{ s.nothing }}|
{{ d.a.b.c }}
{{ d.items.x }}|
{{ 'a' + 1 }}
{{ 1 < 'a' }}
{{ [1, 'a'] | sort }}
{{ 1 in 1 }}
{{ 1 in 'a' }}
{{ none | length }}
{{ 5 | length }}
{% for i in 5 %}{% endfor %}
{% for i in none %}{% endfor %}
{% for a, b in [1] %}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{% endfor %}
{% set ns = 1 %}{% set ns.x = 2 %}
{% set nothere.x = 2 %}
{% set ns = namespace(_x=1) %}
{% set ns = namespace() %}{% set ns._x = 1 %}
{{ l.append(1) }}
{{ l.append }}|{{ d.pop }}|{{ s.__class__ }}|{{ d.update is defined }}
{{ d.pop('b') }}
{{ s.__class__.__mro__ }}
{{ 1 / 0 }}
{{ 1 // 0 }}
{{ 1 % 0 }}
{{ nul[0:1] }}
{{ d[0:1] }}
{{ s['a':] }}
{{ {[1]: 2} }}
{{ range(1000000) }}
{{ range(1, 2, 0) }}
{{ s.split('') }}
{{ s.index('zzz') }}
{{ ','.join([1]) }}
{{ ','.join(5) }}
{{ s.strip(5) }}
{{ '%s %s' % 'a' }}
{{ '%s' % ('a', 'b') }}
{{ '%d' % 'a' }}
{{ 'abc' | nosuchfilter }}
{{ 'abc' is nosuchtest }}
{{ nosuchfunction('a') }}
{{ s.nosuchmethod() }}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{% endmacro %}{{ m(b=2) }}
{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}
{{ {'a': 1} | tojson(bad=1) }}
{{ s | replace('a') }}
{{ s | trim('a', 'b') }}
{{ d | dictsort(by='nothing') }}
{{ users | selectattr | list }}
{{ users | map | list }}
{{ l | map('nosuch') | list }}
{{ 2.5 | round(0, 'bad') }}
{{ 'x' ~ }}
{{ 1 + }}
{{ (1 }}
{{ [1, 2 }}
{{ ) }}
{{ s[ }}
{{ s. }}
{{ s | }}
{{ if }}
{{ 'unterminated }}
{{ 1 2 }}
{{ 05 }}
{{ l[] }}|{{ {(1, 2): 'pair'}[1, 2] }}|{{ l[1, 2] }}|
{{ dict(missing) }}
{{ [] | selectattr | list }}{{ '' | map | list }}
{{ '' | int(7) }}{{ '--1' | int(7) }}{{ '1-1' | int(7) }}{{ '+3' | int }}{{ '.5' | float }}{{ '1.' | float }}{{ 'e5' | float(1) }}
{{ s is string.or.what }}
{{ 1 if true else s | no.such }}
{{ 00 }}{{ 0_0 }}{{ 05.5 }}
{{ a b }}
{{ $ }}
{{ s is }}
{{ 1 is string is defined }}
{{ f(a=1, 2) }}
{{ f(**a, *b) }}
{% if %}{% endif %}
{% if 1 %}
{% for x l %}{% endfor %}
{% for in l %}{% endfor %}
{% for 1 in l %}{% endfor %}
{% endif %}
{% else %}
{% if 1 %}{% endfor %}
{% nosuchtag %}
{% set %}
{% set 1 = 2 %}
{% set x = %}
{% set a.b.c = 1 %}
{% macro %}{% endmacro %}
{% macro m(a=1, b) %}{% endmacro %}
{% macro m() %}
{% break %}
{% continue %}
{% raw %}never ends
{# never ends
{% if 1
{{ 1
{% call 5 %}{% endcall %}
{% do l.append(1) %}
{{ "\x4" }}
{{ {'a' 1} }}
{{ {'a': } }}
{% filter nosuch %}{% endfilter %}'''

# of several lines
TEXTS = [
    '{# comment #}x{#- c -#} y {# a\nb #}\nz\n',
    "  {% if true %}\n  indented\n  {% endif %}\nend\n  {%- if true -%}\n  stripped\n  {%- endif -%}\n  end\n  {%+ if true %}\n  kept\n  {%+ endif +%}\nend\na {{- ' b ' -}} c {{ 'd' -}}   e\nx{% set a = 1 -%}\n\n   y{%- set b = 2 %}\n\nz\n   {# comment at the start #}\ntext {# comment at the end #}\nlast\n\t{% if true %}tab{% endif %}\t \n x {% if true %}\ny\n{% endif %}\n",
    '{{ "multi\nline" }}{{ \'a\' ~\n  \'b\' }}{%\n if true\n%}x{% endif %}\n',
    '{% for i in l %}\n  {{ i }}\n{% else %}\n  none\n{% endfor %}\n\n\n{%- macro m(x) -%}\n    [{{ x }}]\n{%- endmacro -%}\n{{ m(1) }}\n{{- m(2) -}}\n   {{ m(3) }}\n\n',
    'a\n{% raw %}\n  {{ x }}\n  {% endraw %}\nb\n\n',
    '{% if true %}\r\nwindows\r\n{% endif %}\r\nend\r\n',
    '\n\n{{ s }}\n\n',
    '{{ s }}\n',
    '  {{ s }}  \n  {%- if false %}{% endif %}\n  {{ s }}',
    'x\n \t {%- raw %} a {% endraw -%} \n b',
    '{% set a = [\n  1,\n  2,\n] %}{{ a }}',
    '{% if 1 %}\n\n\nx{% endif %}\n\n',
    '{#- a -#}\n\n  x  {#+ b +#}\n y {#- c #}\nz',
    '\xa0{% if 1 %}a{% endif %}\xa0\n\u2003{%- if 1 %}b{% endif -%}\u2003c',
    'line1\nline2\n{{ missing.x }}\n',
    'line1\n{% if %}\n',
    '{{ s }}\n{{ raise_exception("second line") }}',
]

SNIPPETS = LINES.split("\n") + TEXTS
