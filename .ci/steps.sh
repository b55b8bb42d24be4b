# Steps with time limits, for a script that sources this and sets $OUT: their output goes to $OUT/log, what came of each to a table.
steps=()
failed=0
: "${TOTAL_SECONDS:=470}" "${MAXIMUM_FILES:=8}"

note() {
  steps+=("$(printf '%-16s %-12s %5s s' "$1" "$2" "$3")")
}

# step NAME SECONDS COMMAND...: cut when its seconds, or those of all steps, are over. A command that exits with 77 says that it was skipped.
step() {
  local name=$1 limit=$2 start=$SECONDS code
  shift 2
  local left=$((TOTAL_SECONDS - SECONDS))
  if [ $left -le 0 ]; then
    failed=1
    note "$name" "no time left" 0
    return
  fi
  printf '\n=== %s: %s\n' "$name" "$*" | tee -a "$OUT/log"
  timeout --kill-after=5 $((limit < left ? limit : left)) "$@" 2>&1 | tee -a "$OUT/log"
  code=${PIPESTATUS[0]}
  case $code in
    0) note "$name" passed $((SECONDS - start)) ;;
    77) note "$name" skipped $((SECONDS - start)) ;;
    124 | 137) failed=1 && note "$name" cut $((SECONDS - start)) ;;
    *) failed=1 && note "$name" "failed ($code)" $((SECONDS - start)) ;;
  esac
  return "$code"
}

# The table, then what the given command prints of the results; also in $OUT/summary. Returns 1 where a step failed or was cut.
finish() {
  {
    printf '\n'
    printf '%s\n' "${steps[@]}"
    "$@"
  } 2>&1 | tee "$OUT/summary"
  local files
  files=$(find "$OUT" -type f | wc -l)
  if [ "$files" -gt "$MAXIMUM_FILES" ]; then
    failed=1
    echo "$OUT: expected at most $MAXIMUM_FILES files, found $files"
  fi
  return $failed
}
