# Several processes that quantize together: the bytes of one, whatever their number; kill -9 and resume; what does not go together is
# refused. All of it, with kills at ten moments: MPI_KILLS=10.
. "$SOURCE/tests/cli/lib.sh"
kills=${MPI_KILLS:-2}
[ -z "${SANITIZE:-}" ] || export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0" # Open MPI keeps what it has
calib=$SOURCE/examples/text/calib.txt
options="--dim 2 --bits 2.25 --calib $calib --calib-samples 4 --calib-length 64 --em-iterations 2 --reassign-rounds 1 --judge-tokens 128 --quiet"

# a program without MPI, or of another MPI than mpirun, must not do the work several times over
expect_fail 5 'started as one of 3 processes' env PMI_SIZE=3 PMI_RANK=0 "$GPTVQ" quantize "$model" -o out --method rtn --bits 4 --quiet
run env PMI_SIZE=3 PMI_RANK=1 "$GPTVQ" quantize "$model" -o out --method rtn --bits 4 --quiet
[ "$code" = 5 ] && [ ! -s "$capture/err" ] || die "another than the first process speaks"
"$GPTVQ" --version | grep -q 'Open MPI' || exit 0
command -v mpirun > /dev/null || exit 0
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1

ranks() { # ranks N COMMAND…
  count=$1
  shift
  mpirun -q -n "$count" "$@"
}
same() { # same FOLDER EXPECTED
  [ "$(ls -A "$1")" = "$(ls -A "$2")" ] || die "$1: other files than $2: $(ls -A "$1" | tr '\n' ' ')"
  for file in "$2"/*; do # all but how long it took
    [ "$(basename "$file")" = gptvq.json ] || cmp -s "$file" "$1/$(basename "$file")" || die "$1/$(basename "$file") differs"
  done
  [ ! -e "$1.partial" ] || die "$1.partial is left"
}
# refused CODE PATTERN COMMAND…: as expect_fail, where mpirun may add lines of its own
refused() { expect_fail "$@"; }

# shellcheck disable=SC2086
{
  expect_ok "$GPTVQ" quantize "$model" -o one $options --json
  [ "$(json ranks)" = 1 ] && [ "$(json sent_bytes)" = 0 ] || die "one process reports others"
  for n in 1 3 2; do
    expect_ok ranks $n "$GPTVQ" quantize "$model" -o ranks$n $options --json --threads 1
    same ranks$n one
    [ "$(json ranks)" = $n ] || die "$n processes report $(json ranks)"
    [ $n = 1 ] || near "$(json estimated_peak_bytes)" "$(json peak_bytes)" 0.25 # buffers of sums on their way included
    [ "$(json estimated_seconds)" = null ] || die "the time of so short a run was estimated"
    [ $n = 1 ] || [ "$(json sent_bytes_block)" -gt 0 ] || die "no bytes were counted"
    [ $n = 1 ] || [ "$(json sent_bytes)" -ge "$(json sent_bytes_block)" ] || die "a block sent more than all"
  done

  # a trellis code, too, and each has its share of the work: the operations of rank 0
  flop() { sed -n "/^ *\"name\": \"$1\"/,/}/s/^ *\"flop\": \([^,]*\),*\$/\1/p" "$capture/out"; }
  trellis="--code trellis --bits 2.25 --embedding-bits 16 --head-bits 16 $(echo "$options" | sed 's/--dim 2 --bits 2.25//')"
  expect_ok "$GPTVQ" quantize "$model" -o one_trellis $trellis --json
  update=$(flop "codebook update") reassign=$(flop re-assignment) gradients=$(flop gradients)
  for n in 1 2 3; do
    expect_ok ranks $n "$GPTVQ" quantize "$model" -o ranks_trellis $trellis --json --threads 1
    same ranks_trellis one_trellis
    near "$(flop 'codebook update')" "$(awk -v all="$update" -v n=$n 'BEGIN {print all / n}')" 0.05 || die "rank 0 of $n has not its share of the update"
    near "$(flop gradients)" "$(awk -v all="$gradients" -v n=$n 'BEGIN {printf "%.0f", all * int(4 / n) / 4}')" 1e-9 || die "rank 0 of $n has not its share of the gradients"
    near "$(flop re-assignment)" "$(awk -v all="$reassign" -v n=$n 'BEGIN {print all / n}')" 0.05 || die "rank 0 of $n has not its share of re-assignment"
    rm -rf ranks_trellis
  done
  rm -rf one_trellis

  # and by TCP alone, as between machines: Open MPI has no other way then, and fails where that one is not there
  expect_ok env OMPI_MCA_pml=ob1 OMPI_MCA_btl=tcp,self OMPI_MCA_btl_tcp_if_include=lo \
    mpirun -q -n 2 "$GPTVQ" quantize "$model" -o ranks_tcp $options --threads 1
  same ranks_tcp one
  rm -rf ranks_tcp

  # other methods, experts, what comes after the blocks
  tiny() { # tiny NAME OPTIONS…
    name=$1
    shift
    cp -r "$SOURCE/tests/golden/model/$name" "m_$name" && chmod -R u+w "m_$name" && rm -f "m_$name/golden.bin"
    echo '{"bos_token_id": 1}' > "m_$name/generation_config.json"
    expect_ok "$GPTVQ" quantize "m_$name" -o "one_$name" "$@" --quiet
    expect_ok ranks 2 "$GPTVQ" quantize "m_$name" -o "two_$name" "$@" --quiet --threads 1
    same "two_$name" "one_$name"
    rm -rf "m_$name" "one_$name" "two_$name"
  }
  small="--calib self --calib-samples 3 --calib-length 8 --em-iterations 2 --judge-tokens 0"
  tiny mixtral $small --dim 2 --bits 3 --group-size 256
  tiny llama $small --dim 2 --bits 3 --group-size 256 --scale-block 16 --no-true-sequential --guide 0.5
  tiny llama $small --dim 2 --bits 3 --group-size 256 --finetune-steps 2
  tiny llama-tied $small --method gptq --index-bits 3 --group-size 32 --embedding-bits 4
  tiny llama-tied $small --bits 3 --code trellis --embedding-bits 3
  tiny llama-tied $small --calib-samples 64 --calib-length 64 --bits 3 --code trellis --embedding-bits 3 # a spread of the windows for the head
  if [ "$kills" -ge 10 ]; then
    tiny llama $small --dim 2 --bits 3 --group-size 256 --beam 1 --device shim
    tiny llama $small --dim 1 --bits 3 --group-size 256 --svd-rank 2
    tiny llama $small --method gptq --index-bits 3 --group-size 32
    tiny llama --method rtn --bits 4 --embedding-bits 3 --head-bits 8
    tiny llama $small --dim 2 --bits 3 --group-size 256 --embedding-bits 3 --head-bits 5
    tiny llama --method kmeans --dim 2 --bits 3 --group-size 256
    # layers of a real width
    "$GPTVQ" bench make-model --shape smollm2-135m --layers 1 --dense -o high --quiet > /dev/null
    cp "$model"/tokenizer*.json high/ && echo '{"bos_token_id": 1}' > high/generation_config.json
    high="--dim 2 --bits 2.25 --calib $calib --calib-self 0 --calib-samples 3 --calib-length 256 --em-iterations 2 --judge-tokens 0 --quiet"
    expect_ok "$GPTVQ" quantize high -o one_high $high
    for n in 2 3; do
      expect_ok ranks $n "$GPTVQ" quantize high -o ranks_high $high --threads 1
      same ranks_high one_high
      rm -rf ranks_high
    done
    rm -rf high one_high
  fi

  # what does not go together
  copy_model other
  poke other/model.safetensors $(($(stat -c %s other/model.safetensors) - 2)) '\001'
  refused 2 'rank 1 has another model than rank 0' mpirun -q -n 1 "$GPTVQ" quantize "$model" -o out $options : \
    -n 1 "$GPTVQ" quantize other -o out $options
  refused 2 'rank 1 has other options than rank 0' mpirun -q -n 1 "$GPTVQ" quantize "$model" -o out $options : \
    -n 1 "$GPTVQ" quantize "$model" -o out $options --seed 5
  refused 2 'rank 1 has another processor' mpirun -q -n 1 "$GPTVQ" quantize "$model" -o out $options : \
    -n 1 env OPENBLAS_CORETYPE=Prescott "$GPTVQ" quantize "$model" -o out $options --cpu ref
  run "$GPTVQ" quantize "$model" -o out --device shim --method rtn --bits 4 --quiet # there is none without a C++ compiler
  rm -rf out
  [ "$code" != 0 ] || refused 2 'rank 1 computes on another --device \(shim\) than rank 0 \(cpu\)' mpirun -q -n 1 "$GPTVQ" quantize "$model" \
    -o out $options --calib-compute fp32 : -n 1 "$GPTVQ" quantize "$model" -o out $options --calib-compute fp32 --device shim
  refused 2 '3 ranks, but only 2 groups' ranks 3 "$GPTVQ" quantize "$model" -o out $options --calib-samples 2
  refused 5 'finetune-block-steps.* needs all windows in one process' ranks 2 "$GPTVQ" quantize "$model" -o out $options \
    --finetune-block-steps 2
  refused 3 'rank 1: gone is not a model' mpirun -q -n 1 "$GPTVQ" quantize "$model" -o out $options : \
    -n 1 "$GPTVQ" quantize gone -o out $options
  refused 2 'unknown option' ranks 3 "$GPTVQ" quantize "$model" -o out $options --no-such-option
  refused 3 'gone is not a model' ranks 3 "$GPTVQ" quantize gone -o out $options
  rm -rf other
}

# kill -9 of one process at some moment, then on with another number of them. Once blocks are finished there is a clear line, at most one of
# ours: of rank 0, or where that one is dead, or too slow for the time that mpirun leaves the others, of mpirun.
export OMPI_MCA_odls_base_sigkill_timeout=3
pid_of_rank() { # pid_of_rank RANK MPIRUN
  for task in /proc/"$2"/task/*/children; do
    for child in $(cat "$task" 2> /dev/null); do
      if tr '\0' '\n' < "/proc/$child/environ" 2> /dev/null | grep -qx "OMPI_COMM_WORLD_RANK=$1"; then echo "$child"; fi
    done
  done
}
shards() { find out.partial -name '*.safetensors' 2> /dev/null | wc -l; }
blocks=$(find one -name '*.safetensors' | wc -l)
lines=0
for kill in $(seq 1 "$kills"); do
  rm -rf out out.partial
  count=$((2 + kill % 2)) after=$((kill * (blocks - 2) / kills)) victim=$((kill * 7 % (2 + kill % 2)))
  # shellcheck disable=SC2086
  mpirun -n $count "$GPTVQ" quantize "$model" -o out $options --threads 1 > "$capture/out" 2> "$capture/err" < /dev/null &
  job=$!
  tries=0
  until [ "$(shards)" -ge $after ] && [ -n "$(pid_of_rank $victim $job)" ]; do
    tries=$((tries + 1))
    [ $tries -lt 1200 ] && kill -0 $job 2> /dev/null || die "kill $kill: $after blocks were not reached"
    sleep 0.05
  done
  sleep "0.0$((kill * 3 % 10))"
  kill -KILL "$(pid_of_rank $victim $job)"
  code=0
  wait $job || code=$?
  [ $code != 0 ] || die "kill $kill: the job ended well"
  [ ! -e out ] || die "kill $kill: there is an output"
  said=$(grep -c '^gptvq: error: ' "$capture/err" || true)
  [ "$said" -le 1 ] || die "kill $kill: $said error lines"
  lines=$((lines + said))
  if [ $victim != 0 ] && [ "$said" = 1 ]; then expect_err '^gptvq: error: (stopped|the job).*another rank has died.*--resume'; fi
  [ $after = 0 ] || [ "$said" = 1 ] || expect_err '([Rr]ank|[Pp]rocess).*([Ss]ignal|[Kk]illed|died|exited|terminated)'
  count=$((kill % 2 == 0 ? count : (count == 3 ? 1 : 3)))
  # shellcheck disable=SC2086
  expect_ok ranks $count "$GPTVQ" quantize "$model" -o out $options --resume --threads 1
  same out one
done
echo "$kills kills, $lines of them with a line of ours"
