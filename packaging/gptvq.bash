# bash completion of gptvq: commands and options are asked of the program itself.
_gptvq() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]} command=${COMP_WORDS[1]} name argument help
  COMPREPLY=()
  if [ "$COMP_CWORD" = 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W "$("$program" --help=commands 2> /dev/null | cut -f 1) --help --version" -- "$word")
    return
  fi
  [ "$command" != bench ] || [ "$COMP_CWORD" = 2 ] || command="bench ${COMP_WORDS[2]}"
  # shellcheck disable=SC2086
  while IFS=$'\t' read -r name argument help; do
    if [ "$name" = "$before" ] && [ "$argument" != - ]; then # a value: one of a choice, or a file
      case $argument in
      =*) argument=${argument#=} && mapfile -t COMPREPLY < <(compgen -W "${argument//|/ }" -- "$word") ;;
      *) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
      esac
      return
    fi
    case $word in -*) [[ $name != "$word"* ]] || COMPREPLY+=("$name") ;; esac
  done < <("$program" $command --help=options 2> /dev/null)
  case $word in -*) ;; *) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;; esac
}
complete -o filenames -F _gptvq gptvq
