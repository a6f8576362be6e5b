# Outputs that cannot be written, sizes that cannot be reached, calibration that cannot be used: nothing is left behind.
. "$SOURCE/tests/cli/lib.sh"

quantize() { "$GPTVQ" quantize "$@"; }
rtn="--method rtn --bits 3.125 --quiet"
calib=$SOURCE/examples/text/calib.txt
copy_model m
printf 'Once upon a time' > short.txt
: > empty.txt

# shellcheck disable=SC2086
{
  expect_fail 2 '-o OUT is missing' quantize m $rtn
  expect_fail 2 "option -o: the value is empty" quantize m -o "" $rtn
  expect_fail 3 'nowhere' quantize nowhere -o out $rtn
  expect_fail 3 'short\.txt' quantize m -o short.txt/out $rtn
  expect_fail 3 'absent' quantize m -o absent/deep/out $rtn
  mkdir out && printf 'keep me' > out/file
  expect_fail 3 'out.*exists.*--force' quantize m -o out $rtn
  expect_fail '[23]' '(m|itself|source|original)' quantize m -o m $rtn --force
  expect_fail '[23]' '(m|itself|source|original)' quantize m -o ./m/ $rtn --force
  ln -s m link
  expect_fail '[23]' '.' quantize m -o link $rtn --force
  rm link
  # what links of the input point to counts as the input: one file is enough, and OUT.partial is no place either
  for place in target target.partial; do
    mkdir $place linked && cp m/*.json m/*.safetensors $place
    ln -s ../$place/tokenizer.json linked/ && cp m/config.json m/model.safetensors linked
    expect_fail 2 "the output folder $place holds .* linked: choose another" quantize linked -o target $rtn --force
    ln -s "$PWD/$place/model.safetensors" linked/other && rm linked/tokenizer.json linked/model.safetensors
    mv linked/other linked/model.safetensors
    expect_fail 2 "the output folder $place holds .* linked: choose another" quantize linked -o target $rtn --force
    rm -r $place linked
  done

  # what cannot be exchanged in the end is refused at the beginning
  expect_fail 3 '/proc is where a disk is mounted' quantize m -o /proc $rtn --force

  # a tokenizer that is a link to nothing is not left out in silence
  cp -r m broken && rm broken/tokenizer.json && ln -s nothing broken/tokenizer.json
  expect_fail 3 'broken/tokenizer.json: it is a link to a file that does not exist' quantize broken -o out2 $rtn
  rm -r broken

  # full disk: a file-size limit of 256 kB
  limited() { (ulimit -f 512 && exec "$GPTVQ" quantize "$@"); }
  expect_fail 3 '(write|File too large|space)' limited m -o full $rtn
  limited_export() { (ulimit -f 512 && exec "$GPTVQ" export "$@"); }
  expect_ok quantize m -o packed $rtn
  mkdir linked && ln -s "$PWD"/packed/* linked/
  expect_fail 2 'packed holds .* linked: choose another' "$GPTVQ" export linked -o packed --format hf --force
  rm -r linked
  # a link to an output folder stays a link: what it points to is replaced
  ln -s packed alias
  expect_fail 3 'packed exists; use --force' quantize m -o alias $rtn
  # what is no part of a model is not deleted with it, and a folder is not a model for a config.json alone
  for foreign in old notes.txt thesis.json .git; do
    echo mine > packed/$foreign
    expect_fail 3 "packed/$foreign is not part of a model: .*packed will not be replaced" quantize m -o packed $rtn --force
    expect_fail 3 "packed/$foreign is not part of a model" "$GPTVQ" bench make-model -o packed --shape stories --force
    rm packed/$foreign
  done
  mkdir project && echo '{"model_type": "llama"}' > project/config.json && mkdir project/src
  expect_fail 3 'project/src is not part of a model' quantize m -o project $rtn --force
  rmdir project/src && echo '{"scripts": {}}' > project/config.json
  expect_fail 3 'project exists and is not a model folder' quantize m -o project $rtn --force
  rm -r project
  echo '{"mine": 1}' > packed/resume.json # not a state of ours, and not a part of a model
  expect_fail 3 'packed/resume.json is not part of a model' quantize m -o packed $rtn --force
  rm packed/resume.json
  touch packed/model-00005-of-00005.safetensors
  expect_ok quantize m -o alias/ $rtn --force
  [ -L alias ] && [ -s packed/model-00005-of-00005.safetensors ] || die "the folder behind a link was not replaced"
  rm alias
  # a folder named like a work folder, but without the mark of one
  cp -r packed full.partial
  expect_fail 3 'full.partial exists and is not an interrupted run: move it elsewhere' quantize m -o full $rtn --force
  expect_fail 3 'full.partial exists and is not an interrupted run: move it elsewhere' "$GPTVQ" export packed -o full --force --quiet
  expect_fail 3 'full.partial exists and is not an interrupted run' "$GPTVQ" bench make-model -o full --shape stories --force
  echo '{' > full.partial/resume.json
  expect_fail 4 'full.partial/resume.json is damaged or not gptvq.s' quantize m -o full $rtn --force
  rm -r full.partial
  expect_fail 2 'full.partial needs another name' quantize m -o full.partial $rtn
  expect_fail 3 '(write|File too large|space)' limited_export packed -o full --quiet
  expect_fail 3 'short\.txt' "$GPTVQ" export packed -o short.txt/out --quiet
  expect_fail 2 '-o PATH is missing' "$GPTVQ" export packed
  expect_fail '[25]' '(packed|quantized)' "$GPTVQ" export m -o plain
  expect_fail '[25]' '(packed|already|quantized)' quantize packed -o again $rtn
  if [ "$(id -u)" != 0 ]; then
    mkdir locked && chmod a-w locked
    expect_fail 3 'locked.*[Pp]ermission' quantize m -o locked/out $rtn
    chmod u+w locked
  fi
}

# options that make no sense together or at all
expect_fail 2 'dim 3 ' quantize m -o x --dim 3
expect_fail 2 'bits 0\.2 ' quantize m -o x --bits 0.2 --dim 2
expect_fail 2 'bits 15 ' quantize m -o x --bits 15 --nominal --dim 4
expect_fail 2 '--centroids: 100 is not a power of two' quantize m -o x --centroids 100
expect_fail 2 'say the same thing' quantize m -o x --centroids 16 --index-bits 4
expect_fail 2 '--bits follows' quantize m -o x --centroids 16 --group-size 2048 --bits 2
expect_fail 2 'codebook.bits 12 ' quantize m -o x --codebook-bits 12
expect_fail 2 'scale.block 24 ' quantize m -o x --scale-block 24
expect_fail 2 'group.col' quantize m -o x --group-columns 3
expect_fail 2 'option --damping: -1 is out of range' quantize m -o x --damping -1
expect_fail 2 'option --calib-samples: 0 is out of range' quantize m -o x --calib-samples 0

# calibration
gptvq="--dim 2 --bits 2.25 --quiet --calib-length 64 --calib-samples 2"
# shellcheck disable=SC2086
{
  expect_fail 2 'weight' quantize m -o x --dim 2 --bits 2.25 --quiet --calib "$calib" --calib "$calib:0"
  expect_fail 3 'nothing\.txt' quantize m -o x $gptvq --calib nothing.txt
  expect_fail 8 'empty\.txt is empty' quantize m -o x $gptvq --calib empty.txt
  expect_fail 8 'short\.txt is too short: [0-9]+ tokens, one window needs 64' quantize m -o x $gptvq --calib short.txt
  expect_fail '[28]' '4096' quantize m -o x --dim 2 --bits 2.25 --quiet --calib "$calib" --calib-length 4096

  # weights that are not numbers
  poke m/model.safetensors $(($(data_offset m/model.safetensors model.layers.0.mlp.up_proj.weight) + 4000)) '\300\177'
  expect_fail 6 'model\.layers\.0\.mlp\.up_proj.*(NaN|finite|infinit)' quantize m -o x $rtn
  expect_fail 6 '(NaN|finite|infinit)' quantize m -o x $gptvq --calib "$calib"

  # weights that fp16 scales cannot hold, in the last layer: refused before the first block
  rm -rf m
  copy_model m
  head -c $((256 * 768 * 2)) /dev/zero | tr '\0' '\036' | # 8e-21
    dd of=m/model.safetensors bs=64k oflag=seek_bytes conv=notrunc \
      seek="$(data_offset m/model.safetensors model.layers.3.mlp.down_proj.weight)" 2> /dev/null
  for options in "--method rtn" "--method gptq --calib $calib"; do
    expect_fail 6 'error: model\.layers\.3\.mlp\.down_proj: the weights are too small.*--method gptvq' \
      quantize m -o x --bits 3.125 --calib-length 64 --calib-samples 2 $options
    [ ! -e x.partial ] || die "blocks were quantized before the last one was refused: $options"
    ! grep -q '^quantize' "$capture/err" || die "layers were quantized before the last one was refused: $options"
  done
}
