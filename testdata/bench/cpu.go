package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

const tick = 10 // milliseconds: USER_HZ, which is 100 wherever Go runs (time(7))

// busy is the CPU time that the whole machine has used since its start (proc(5)).
func busy() (milliseconds float64, err error) {
	const user, nice, system, irq, softirq = 1, 2, 3, 6, 7
	return ticks("/proc/stat", 0, user, nice, system, irq, softirq)
}

// rested is the time that the machine's processors have had nothing to do, or waited for a disk, since its start.
func rested() (milliseconds float64, err error) {
	const idle, iowait = 4, 5
	return ticks("/proc/stat", 0, idle, iowait)
}

func restedSince(then float64) (milliseconds float64, err error) {
	now, err := rested()
	return now - then, err
}

// usedBy is the CPU time that all threads of a process have used.
func usedBy(pid int) (milliseconds float64, err error) {
	const user, system = 11, 12 // from the state on, which follows the program's name in parentheses
	return ticks(fmt.Sprintf("/proc/%d/stat", pid), ')', user, system)
}

// ticks adds up fields of the first line of file, counted from 0 behind the last of mark.
func ticks(file string, mark byte, fields ...int) (milliseconds float64, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	values := bytes.Fields(line[bytes.LastIndexByte(line, mark)+1:])
	sum := 0
	for _, f := range fields {
		if f >= len(values) {
			return 0, fmt.Errorf("%s has no field %d: %q", file, f, line)
		}
		n, err := strconv.Atoi(string(values[f]))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		sum += n
	}
	return float64(sum * tick), nil
}
