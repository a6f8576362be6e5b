#!/bin/sh
# Manual pages and list of commands, as the program describes itself: make-man.sh PROGRAM FOLDER
set -eu
program=$1 folder=$2
mkdir -p "$folder"
version=$("$program" --version | cut -d ' ' -f 2)
{
  printf '.TH gptvq 1 "" "gptvq %s" "gptvq"\n.SH NAME\ngptvq \\- large language models at 1.5 to 4.5 bits per weight\n' "$version"
  printf '.SH SYNOPSIS\n\\fBgptvq\\fR \\fICOMMAND\\fR [\\fIarguments\\fR] [\\fIoptions\\fR]\n.SH COMMANDS\n'
  "$program" --help=commands | while IFS='	' read -r name help; do
    printf '.TP\n\\fBgptvq\\-%s\\fR(1)\n%s\n' "$name" "$help"
  done
  printf '.SH EXIT STATUS\n0 done, 1 a bug in gptvq, 2 wrong option or argument, 3 file cannot be read or written, 4 malformed file, 5 not supported, 6 NaN or '
  printf 'numeric failure, 7 out of memory, 8 unusable text or tokens, 130 interrupted.\n'
} > "$folder/gptvq.1"
"$program" --help=commands | cut -f 1 | while read -r name; do
  case $name in bench) continue ;; esac
  "$program" "$name" --help=man > "$folder/gptvq-$name.1"
done
for name in model make-model kernels memory quantize device; do "$program" bench $name --help=man > "$folder/gptvq-bench-$name.1"; done
