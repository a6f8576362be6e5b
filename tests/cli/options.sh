# The option parser, through the commands: every mistake is one clear line with exit code 2.
. "$SOURCE/tests/cli/lib.sh"

expect_ok "$GPTVQ" --version
expect_out '^gptvq [0-9]+\.[0-9]+\.[0-9]+ \((with Open MPI [0-9.]+|without MPI)\)$'
for command in quantize eval compare generate chat inspect tokenize export; do
  expect_ok "$GPTVQ" --help
  expect_out "^  $command "
  expect_ok "$GPTVQ" $command --help
  expect_out 'Examples:'
  expect_out "^  gptvq $command "
  expect_ok "$GPTVQ" help $command
  expect_out 'Examples:'
done
expect_fail 2 'no command' "$GPTVQ"
expect_fail 2 "unknown command 'evl'; did you mean eval\?" "$GPTVQ" evl
expect_fail 2 "unknown command 'xyzzy'; see gptvq --help" "$GPTVQ" xyzzy

expect_fail 2 'MODEL is missing: gptvq eval MODEL' "$GPTVQ" eval
expect_fail 2 'MODEL is empty: gptvq eval MODEL' "$GPTVQ" eval "" --text f
expect_fail 2 'B is missing' "$GPTVQ" compare a
expect_fail 2 "unexpected argument 'b'" "$GPTVQ" inspect a b
expect_fail 2 'unknown option --txt; did you mean --text\?' "$GPTVQ" eval m --txt f
expect_fail 2 'unknown option --no-feedbak; did you mean --no-feedback\?' "$GPTVQ" quantize m -o x --no-feedbak
expect_fail 2 'unknown option --zzz; see gptvq eval --help' "$GPTVQ" eval m --zzz
expect_fail 2 'unknown option -z' "$GPTVQ" eval m -z
expect_fail 2 'option --text needs a value: --text FILE' "$GPTVQ" eval m --text
expect_fail 2 'option --text needs a value' "$GPTVQ" eval m --text --json
expect_fail 2 'option --text: the value is empty' "$GPTVQ" eval m --text=
expect_fail 2 'option --json takes no value' "$GPTVQ" eval m --json=1
expect_fail 2 'option --no-bos takes no value' "$GPTVQ" eval m --no-bos=1
expect_fail 2 'unknown option --no-json' "$GPTVQ" eval m --no-json

expect_fail 2 "option --bits: 'abc' is not a number" "$GPTVQ" quantize m -o x --bits abc
expect_fail 2 "option --bits: 'nan' is not a number" "$GPTVQ" quantize m -o x --bits nan
expect_fail 2 'option --bits: inf is out of range' "$GPTVQ" quantize m -o x --bits inf
expect_fail 2 'option --bits: 99 is out of range, 0.1 to 16' "$GPTVQ" quantize m -o x --bits=99
expect_fail 2 'option --bits: -1 is out of range' "$GPTVQ" quantize m -o x --bits -1
expect_fail 2 "option --dim: '2x' is not a number" "$GPTVQ" quantize m -o x --dim 2x
expect_fail 2 "option --dim: '1.5' is not a whole number" "$GPTVQ" quantize m -o x --dim 1.5
expect_fail 2 "option --dim: '' is not a number" "$GPTVQ" quantize m -o x --dim=
expect_fail 2 'option --ctx: 1 is out of range, 2 to' "$GPTVQ" eval m --ctx 1
expect_fail 2 'option --ctx: 99999999999999999999999 is out of range' "$GPTVQ" eval m --ctx 99999999999999999999999
expect_fail 2 'option --threads: -1 is out of range, 0 to 256' "$GPTVQ" inspect m --threads -1
expect_fail 2 'option --seed: -1 is out of range' "$GPTVQ" generate m -p x --seed -1
expect_fail 2 'option --top-p: 0 is out of range' "$GPTVQ" generate m -p x --top-p 0
expect_fail 2 'option --min-p: 1.5 is out of range' "$GPTVQ" generate m -p x --min-p 1.5
expect_fail 2 'option --repeat-penalty: 0 is out of range' "$GPTVQ" generate m -p x --repeat-penalty 0
expect_fail 2 'option --temp: -0.5 is out of range' "$GPTVQ" generate m -p x --temp -0.5
expect_fail 2 "option --method: 'vq' is not one of gptvq, gptq, rtn, kmeans" "$GPTVQ" quantize m -o x --method vq
expect_fail 2 "option --act-order: 'sorted' is not one of off, columns, blocks" "$GPTVQ" quantize m -o x --act-order sorted
expect_fail 2 "option --compute: 'fp64' is not one of auto, fp32, bf16" "$GPTVQ" eval m --compute fp64

# both spellings of a value, the letter forms, and the end of options
expect_fail 3 '^gptvq: error: .*nowhere' "$GPTVQ" inspect -- nowhere
expect_fail 3 -- "$GPTVQ" inspect -- --json
for spelling in '-n 3' '-n3' '--tokens 3' '--tokens=3'; do
  # shellcheck disable=SC2086
  expect_ok "$GPTVQ" generate "$model" -p 'Once upon a time' --temp 0 --json $spelling
  [ "$(json tokens)" = 3 ] || die "$spelling was not understood"
done

# CPU levels
expect_fail 2 'option --cpu: .*sse9' "$GPTVQ" inspect "$model" --cpu sse9
expect_fail 2 'environment variable GPTVQ_CPU: .*sse9' env GPTVQ_CPU=sse9 "$GPTVQ" inspect "$model"
case ${MACHINE:-$(uname -m)} in aarch64 | arm64) other=avx2 ;; *) other=neon ;; esac
expect_fail 5 "option --cpu: .*$other" "$GPTVQ" inspect "$model" --cpu $other
expect_ok env GPTVQ_CPU=ref "$GPTVQ" inspect "$model"
expect_ok "$GPTVQ" inspect "$model" --cpu ref --threads=1 --quiet

# lists of CPUs: the first one that this process may use, then none
one=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*\([0-9]*\).*/\1/p' /proc/self/status)
expect_ok "$GPTVQ" eval "$model" --text "$model/../text/eval.txt" --ctx 32 --max-windows 1 --cpu "$one" --json
expect_ok "$GPTVQ" inspect "$model" --cpu "$one" --threads 1
expect_fail 2 "--threads 2 needs as many CPUs, but --cpu $one names 1" "$GPTVQ" inspect "$model" --cpu "$one" --threads 2
expect_fail 2 'option --cpu: .*there is no CPU 999' "$GPTVQ" inspect "$model" --cpu "$one,999"
expect_fail 2 'option --cpu: .*not a list of CPUs' "$GPTVQ" inspect "$model" --cpu 0-
expect_fail 2 'option --cpu: .*twice' "$GPTVQ" inspect "$model" --cpu "$one,$one"
