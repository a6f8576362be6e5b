# Perplexity and KL divergence of the example model equal transformers' (tests/golden/eval/make_reference.py).
. "$SOURCE/tests/cli/lib.sh"

# fp32 against fp32 over 2,044 predictions: the mean of independent rounding errors, far below 1e-5
for from in 0 256; do
  nll=$(awk -v p=$from '/"score_from"/ {hit = $2 + 0 == p} /"nll"/ && hit && !done {gsub(",", ""); print $2; done = 1}' "$SOURCE/tests/golden/eval/reference.json")
  expect_ok "$GPTVQ" eval "$model" --text "$text" --ctx 512 --max-windows 4 --score-from $from --json --quiet
  near "$(json nll)" "$nll" 1e-5
  [ "$(json tokens)" = $((4 * (511 - from))) ] || die "wrong number of predictions"
  [ "$(json windows) $(json ctx) $(json score_from)" = "4 512 $from" ] || die "wrong windows"
  [ ! -s "$capture/err" ] || die "--quiet is not quiet"
done
[ "$(json bits_per_value)" = 16.0 ] && [ "$(json model_bits_per_value)" = 16.0 ] || die "wrong bits per value"
near "$(json perplexity)" "$(awk -v n="$(json nll)" 'BEGIN {printf "%.12f", exp(n)}')" 1e-8

# the same in words, from standard input, with any number of threads; one window more or less does not matter to the first
expect_ok "$GPTVQ" eval "$model" --text "$text" --ctx 64 --max-windows 3 --threads 1 --json --quiet
one=$(json nll)
expect_ok "$GPTVQ" eval "$model" --text "$text" --ctx 64 --max-windows 3 --threads 2 --json --quiet
[ "$one" = "$(json nll)" ] || die "the result depends on the number of threads"
head -c 2000 "$text" > short.txt
run sh -c '"$1" eval "$2" --text - --ctx 64 --max-windows 3 --json --quiet < short.txt' sh "$GPTVQ" "$model"
[ "$code" = 0 ] && [ "$one" = "$(json nll)" ] || die "standard input reads differently"
expect_ok "$GPTVQ" eval "$model" --text short.txt --ctx 64 --max-windows 3
expect_out '^perplexity +[0-9]+\.[0-9]{4}$'
expect_out '^predictions +189 \(3 windows of 64 tokens\)$'
expect_err '^evaluate 3/3, perplexity '
expect_ok "$GPTVQ" eval "$model" --text short.txt --ctx 64 --max-windows 1 --compute bf16 --json --quiet
expect_ok "$GPTVQ" eval "$model" --text "$text" --ctx 2100 --max-windows 1 --quiet --json
expect_err 'warning: --ctx 2100 is more than the 2048 positions'

# against a model with a larger epsilon in every norm
copy_model other
edit other/config.json 's/"rms_norm_eps": 1e-05/"rms_norm_eps": 0.1/'
expect_ok "$GPTVQ" compare "$model" other --text "$text" --ctx 512 --max-windows 4 --json --quiet
near "$(json kl_mean)" "$(golden kl_mean)" 1e-5
near "$(json kl_stderr)" "$(golden kl_stderr)" 1e-4
near "$(json kl_max)" "$(golden kl_max)" 1e-4
near "$(json top1_agreement)" "$(golden top1_agreement)" 0.002 # ties and near-ties: 3 of 2,044 may fall either way
near "$(json perplexity_b)" "$(golden perplexity_b)" 1e-5
expect_ok "$GPTVQ" compare "$model" "$model" --text short.txt --ctx 64
expect_out '^KL\(A \|\| B\) +0\.000000 \+- 0\.000000 nats per token, largest 0\.000$'
expect_out '^top-1 agreement +100\.00 %$'

# several texts: a row each, the same figures as alone; then their mean and the worst
head -c 4000 "$text" | tail -c 2000 > second.txt
for file in short second; do
  expect_ok "$GPTVQ" compare "$model" other --text $file.txt --ctx 64 --json --quiet
  json kl_mean > $file.kl
  expect_ok "$GPTVQ" eval "$model" --text $file.txt --ctx 64 --json --quiet
  json perplexity > $file.perplexity
done
expect_ok "$GPTVQ" compare "$model" other --text short.txt --text=second.txt --ctx 64 --json --quiet
[ "$(grep -c '"kl_mean"' "$capture/out")" = 2 ] || die "not an object for each text"
for file in short second; do
  grep -q "\"kl_mean\": $(cat $file.kl)" "$capture/out" || die "$file.txt has another divergence beside another text"
  grep -q "\"text\": \"$file.txt\"" "$capture/out" || die "$file.txt is not named"
done
expect_ok "$GPTVQ" compare "$model" other --text short.txt --text second.txt --ctx 64 --quiet
expect_out "^short\.txt +$(awk '{printf "%.6f", $1}' short.kl) \+- "
expect_out "^second\.txt +$(awk '{printf "%.6f", $1}' second.kl) \+- "
expect_out "^mean +$(cat short.kl second.kl | awk '{s += $1} END {printf "%.6f", s / 2}')$"
expect_out "^worst +$(sort -g short.kl second.kl | tail -1 | awk '{printf "%.6f", $1}')$"
expect_ok "$GPTVQ" eval "$model" --text short.txt --text second.txt --ctx 64 --quiet
for file in short second; do expect_out "^$file\.txt +$(awk '{printf "%.4f", $1}' $file.perplexity) "; done
expect_fail 3 'nothing\.txt' "$GPTVQ" eval "$model" --text short.txt --text nothing.txt --ctx 64 --quiet
