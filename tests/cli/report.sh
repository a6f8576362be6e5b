# gptvq report: one well-formed page that needs nothing else, whose numbers are those that inspect and the folder's record have.
. "$SOURCE/tests/cli/lib.sh"
tiny="--calib self --calib-samples 4 --calib-length 16 --quiet"

# every tag is closed in its order, no attribute or text breaks out, and nothing is fetched
well_formed() {
  tr '\n' ' ' < "$1" | sed 's/</\n</g' | sed 1d | LC_ALL=C awk '
    function fail(why) { print why ": " $0; failed = 1; exit 1 }
    NR == 1 { if ($0 !~ /^<!DOCTYPE html>/) fail("no doctype"); next }
    {
      if (match($0, /^<\/[a-z0-9]+>/)) {
        name = substr($0, 3, RLENGTH - 3)
        if (depth == 0 || stack[depth] != name) fail("closes what is not open")
        depth--
      } else if (match($0, /^<[a-z0-9]+( [a-zA-Z0-9-]+="[^"<]*")*\/?>/)) {
        tag = substr($0, 1, RLENGTH)
        name = tag; sub(/^</, "", name); sub(/[ \/>].*/, "", name)
        if (tag !~ /\/>$/) stack[++depth] = name
      } else fail("no tag")
      rest = substr($0, RLENGTH + 1)
      gsub(/&(lt|gt|amp|quot);/, "", rest)
      if (rest ~ /[&>]/) fail("bare character")
    }
    END { if (!failed && depth != 0) { print "left open: " stack[depth]; exit 1 } }' || die "$1 is not well-formed"
  ! grep -Eq '(src|href)=|url\(|@import|<script|https?:' "$1" || die "$1 fetches something"
}

expect_ok "$GPTVQ" quantize "$SOURCE/tests/golden/model/mixtral" -o moe $tiny --index-bits 3 --group-size 256 --group-columns 32 --em-iterations 3
expect_ok "$GPTVQ" quantize "$model" -o rtn --method rtn --bits 3.25 --quiet
expect_ok "$GPTVQ" report rtn
well_formed rtn.html
grep -q 'No evaluation is recorded' rtn.html || die "the page does not say that nothing was recorded"

# a compare that is recorded, twice: the second takes the place of the first; paths stay out
expect_ok "$GPTVQ" compare "$model" rtn --text "$text" --ctx 64 --max-windows 2 --record --json
kl=$(json kl_mean) ppl=$(json perplexity_b) before=$(json perplexity_a)
expect_ok "$GPTVQ" compare "$model" rtn --text "$text" --ctx 64 --max-windows 2 --record
expect_ok "$GPTVQ" eval rtn --text "$text" --ctx 64 --max-windows 3 --record
[ "$(grep -c '"text": "eval.txt"' rtn/gptvq.json)" = 2 ] || die "other evaluations than a comparison and a perplexity: $(cat rtn/gptvq.json)"
! grep -q / rtn/gptvq.json || die "the record has a path in it"
expect_fail 3 'rtn.html exists; use --force' "$GPTVQ" report rtn
expect_ok "$GPTVQ" report rtn --force
well_formed rtn.html
grep -Fq "<td>64</td><td>$(printf %.4f "$before")</td><td>$(printf %.4f "$ppl")</td><td>$(printf %.6f "$kl") ±" rtn.html || die "other figures than compare printed"

# the record cannot be written when the figures are there: they are printed all the same, and the old record stands
if [ -z "${SANITIZE:-}" ]; then # which writes files of its own
  cp rtn/gptvq.json before.json
  for command in "eval rtn" "compare $model rtn"; do
    for json in "" --json; do
      { code=0; (ulimit -f 0 && exec "$GPTVQ" $command --text "$text" --ctx 48 --max-windows 1 --record $json 2>&3) || code=$?; echo "code $code"; } 3>&1 | cat > "$capture/all"
      grep -q '^code 3$' "$capture/all" && grep -Eq '^gptvq: error: .*rtn/.*(large|space)' "$capture/all" || die "$command: a record that cannot be written: $(cat "$capture/all")"
      grep -Eiq 'perplexity.*[0-9]' "$capture/all" || die "$command keeps the figures to itself: $(cat "$capture/all")"
      cmp before.json rtn/gptvq.json && [ -z "$(find rtn -name '*.partial*' -o -name '*.tmp*')" ] || die "$command leaves a damaged record: $(ls -a rtn)"
    done
  done
fi

# each layer's row is what inspect says
expect_ok "$GPTVQ" inspect rtn
awk '$1 ~ /^model\.layers/ {print $1, $(NF - 2), $(NF - 1), $NF}' "$capture/out" > wanted
sed -n 's|^<tr><td>\(model\.[^<]*\)</td><td>[^<]*</td><td>\([^<]*\)</td><td>\([^<]*\)</td><td>\([^<]*\)</td></tr>$|\1 \2 \3 \4|p' rtn.html > got
[ -s wanted ] && cmp wanted got || die "other layers than inspect has"

# experts and stages are those of the record; another folder stands beside
expect_ok "$GPTVQ" report moe --beside rtn -o page.html
well_formed page.html
tokens=$(tr -d ' \n' < moe/gptvq.json | sed 's/.*"expert_tokens":\[\[\([0-9]*\),.*/\1/')
grep -q "<title>block 0, expert 0: $tokens</title>" page.html || die "other tokens of experts than $tokens"
grep -q '<td class="name">rtn</td>' page.html || die "the folder beside is not there"
stages=$(grep -c '"cpu_seconds"' moe/gptvq.json)
[ "$stages" -ge 6 ] && [ "$(grep -c ' s (CPU [0-9.]* s)</title>' page.html)" -ge 4 ] || die "stages are missing"

# bad input
expect_fail 2 'is not packed' "$GPTVQ" report "$model" -o x.html
expect_fail 3 'does not exist' "$GPTVQ" report nowhere -o x.html
expect_fail 3 'is a folder, not a file' "$GPTVQ" report rtn -o moe
expect_fail 3 'no-folder' "$GPTVQ" report rtn -o no-folder/x.html
expect_fail 2 '--record keeps results in packed folders' "$GPTVQ" eval "$model" --text "$text" --ctx 64 --max-windows 1 --record
cp -r rtn odd && echo '{"format": 1, "evaluations": 7}' > odd/gptvq.json
expect_fail 4 'odd/gptvq.json is damaged' "$GPTVQ" report odd -o x.html
echo '{"format": 2, "evaluations": []}' > odd/gptvq.json
expect_fail 5 'format 2, not 1' "$GPTVQ" report odd -o x.html
# said before the work, not behind it
for command in "eval odd" "compare $model odd"; do
  expect_fail 5 'format 2, not 1' "$GPTVQ" $command --text "$text" --ctx 64 --max-windows 1 --record
  ! grep -q 'perplexity\|KL' "$capture/err" || die "$command worked before it looked where its figures go"
done
echo '{"format": 1, "gptvq_version": "<i>0&", "evaluations": [{"text": "<b>\u0001&\"", "perplexity": "no", "kl_mean": 1e308, "perplexity_a": -5}], "run": {"stages": [7], "expert_tokens": [[-1], 3]}}' > odd/gptvq.json
expect_ok "$GPTVQ" report odd -o odd.html
well_formed odd.html
grep -Fq '&lt;b&gt;?&amp;&quot;' odd.html || die "a name is not what it was"
grep -Fq 'packed by gptvq &lt;i&gt;0&amp;<' odd.html || die "the version is not what it was"
# evaluations that differ in the last bit of a double, or in their context, more texts than there are colours, tokens of experts that the model has not
{
  echo '{"format": 1, "run": {"expert_tokens": [[1, 2, 3]]}, "evaluations": [{"text": "x", "perplexity": 1}, {"text": "x", "perplexity": 1.0000000000000002}'
  echo ', {"text": "x", "perplexity": 1.5, "ctx": 64}'
  for i in 1 2 3 4 5 6 7 8; do echo ", {\"text\": \"text $i\", \"perplexity\": 1}"; done
  echo ']}'
} > odd/gptvq.json
(ulimit -t 20 && exec "$GPTVQ" report odd -o odd.html --force --quiet) || die "a page of two figures that are nearly the same"
well_formed odd.html
[ "$(grep -c '<path class="join' odd.html)" = 1 ] || die "points of different texts or contexts are joined"
# ten points at one place, each with a ring of its own as far as 32 pixels
rings=$(sed -n 's/.*<circle class="dot .* r="\([0-9]*\)"><title>.*: [0-9.]* MB, 1<.*/\1/p' odd.html | tr '\n' ' ')
[ "$rings" = "29 29 26 23 20 17 14 11 8 5 " ] || die "points on one another have the radii $rings"
! grep -q 'expert 0' odd.html || die "experts of a model that has none"
rm odd/gptvq.json
expect_ok "$GPTVQ" report odd -o odd.html --force
(cd odd && expect_ok "$GPTVQ" report . -o ../dot.html && expect_ok "$GPTVQ" report . && mv odd.html ..)
grep -q '<h1>odd</h1>' dot.html && cmp dot.html odd.html || die "report . does not name the folder"
mv rtn '<i> "&x'
expect_ok "$GPTVQ" report '<i> "&x' -o name.html
well_formed name.html
