#!/bin/bash
# Runs cmocka programs: run_unit.sh BIN...
#
# Prints one line for each program, the end of the output of those that failed,
# and at last "unit: N passed, N failed, N skipped", counting cases and not
# programs. A program that exits 77 is one skip. Sanitizer output, a crash or a
# time-out is a failure even where every case passed.
#
#   UNIT_TIMEOUT  seconds for one program (600)
#   JOBS          programs at a time (1)
set -u

timeout_s=${UNIT_TIMEOUT:-600}
jobs=${JOBS:-1}
tsan_on="halt_on_error=0 second_deadlock_stack=1"
sanitizer_words='ERROR: (Address|Leak|Thread|Memory)Sanitizer'
sanitizer_words+='|WARNING: ThreadSanitizer|runtime error: '


# One program: its output, then a line "RESULT passed failed skipped".
run_one()
{
    local bin=$1 log=$2 rc passed failed skipped

    CMOCKA_MESSAGE_OUTPUT=TAP \
    ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0} \
    UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1} \
    TSAN_OPTIONS=${TSAN_OPTIONS:-$tsan_on} \
        timeout -k 5 "$timeout_s" "$bin" > "$log" 2>&1 < /dev/null
    rc=$?

    skipped=$(grep -cE '^(not )?ok .*# SKIP' "$log")
    passed=$(grep -E '^ok ' "$log" | grep -cv '# SKIP')
    failed=$(grep -E '^not ok ' "$log" | grep -cv '# SKIP')

    judge "$rc"
    echo "RESULT $passed $failed $skipped" >> "$log"
}


# What the exit status says beyond the cases; sets the counters of run_one.
judge()
{
    if [ "$1" -eq 77 ] && [ "$failed" -eq 0 ]; then
        skipped=$((skipped + (passed + skipped == 0)))
    elif [ "$1" -eq 124 ] || [ "$1" -eq 137 ]; then
        echo "run_unit.sh: no end after $timeout_s s" >> "$log"
        failed=$((failed + 1))
    elif [ "$1" -ne 0 ] && [ "$failed" -eq 0 ]; then
        echo "run_unit.sh: ended with status $1" >> "$log"
        failed=1
    elif [ "$1" -eq 0 ] && [ $((passed + failed + skipped)) -eq 0 ]; then
        passed=1
    fi

    if grep -qE "$sanitizer_words" "$log" && [ "$failed" -eq 0 ]; then
        failed=1
    fi
}


report_one()
{
    local name=$1 log=$2 p f s

    read -r _ p f s < <(tail -n 1 "$log")
    total_passed=$((total_passed + p))
    total_failed=$((total_failed + f))
    total_skipped=$((total_skipped + s))

    if [ "$f" -gt 0 ]; then
        printf 'FAIL %-44s %d passed, %d failed\n' "$name" "$p" "$f"
        sed '$d; s/^/    /' "$log" | tail -n 100
    elif [ "$s" -gt 0 ]; then
        printf 'ok   %-44s %d passed, %d skipped\n' "$name" "$p" "$s"
    else
        printf 'ok   %-44s %d passed\n' "$name" "$p"
    fi
}


logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
total_passed=0 total_failed=0 total_skipped=0

running=0 n=0
for bin in "$@"; do
    n=$((n + 1))
    run_one "$bin" "$logs/$n" &
    running=$((running + 1))
    if [ "$running" -ge "$jobs" ]; then
        wait -n
        running=$((running - 1))
    fi
done
wait

n=0
for bin in "$@"; do
    n=$((n + 1))
    report_one "${bin##*/tests/}" "$logs/$n"
done

echo "unit: $total_passed passed, $total_failed failed," \
     "$total_skipped skipped"
[ "$total_failed" -eq 0 ]
