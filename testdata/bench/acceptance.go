package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	postfixtest "mailbag/testdata/postfix"
)

// spins is the CPU time that a spam filter takes for a small message.
const spins = 5 * time.Millisecond

// A run has to be long enough for its deliveries to get under way while it accepts.
const lot, filteredLot = 1000, 500

// A connection carries one message, as most senders have it, or many, as forwarders and lists do.
var one, many = shape{1, "acme.example"}, shape{10, "acme.example"}

// acceptance is what mailbag costs a Postfix that accepts mail for a backup domain, against one with the domain in its own
// tables, and beside milters that know nothing of mailbag.
func acceptance(rounds int) func(bin, dir string) error {
	return func(bin, dir string) error {
		plain := &variant{name: "Postfix", lot: lot, up: postfix(none, false)}
		null := &variant{name: "with the null milter", lot: lot, against: plain, up: postfix(0, false)}
		wired := &variant{name: "with mailbag", lot: lot, against: plain, up: postfix(none, true)}
		filtered := &variant{name: "with a filter", lot: filteredLot, up: postfix(spins, false)}
		both := &variant{name: "with the filter and mailbag", lot: filteredLot, against: filtered, up: postfix(spins, true)}
		return compare([]*variant{plain, null, wired, filtered, both}, []shape{one, many}, rounds, bin, dir, func(order *rand.Rand) error {
			for _, s := range []shape{one, many} {
				atLeast(fmt.Sprintf("acceptance with mailbag / without, %d each", s.each), median(wired.ratios(s)), 0.8, "")
				atLeast(fmt.Sprintf("the same beside a filter of %v, %d each", spins, s.each), median(both.ratios(s)), 0.98, "")
			}
			return alone(plain, wired, 200, order, dir)
		})
	}
}

// compare has all variants run in all shapes, prints what came of it, and has it judged. All deliver to the same server while
// they accept. A machine's speed changes while one looks: in a round each has its run, in an order that is drawn anew,
// and only runs of one round are compared.
func compare(all []*variant, shapes []shape, rounds int, bin, dir string, judge func(order *rand.Rand) error) error {
	if rounds < 1 {
		return errors.New("there is nothing to compare without a round")
	}
	port, err := postfixtest.FreePort()
	if err != nil {
		return err
	}
	sink := exec.Command("smtp-sink", "-u", "postfix", fmt.Sprintf("127.0.0.1:%d", port), "200")
	if err := sink.Start(); err != nil {
		return err
	}
	defer end(sink)
	measure := func() error {
		seed := rand.Uint64()
		order := rand.New(rand.NewPCG(seed, 0))
		fmt.Printf("%d rounds, %d sessions, seed %d; medians, and the quartiles in brackets\n", rounds, sessions, seed)
		if err := play(all, shapes, rounds, order); err != nil {
			return err
		}
		for _, s := range shapes {
			show(all, s)
		}
		if err := judge(order); err != nil {
			return err
		}
		for _, v := range all {
			if err := v.counted(); err != nil {
				return err
			}
		}
		return nil
	}
	for i, v := range all {
		inner := measure
		measure = func() error { return v.beside(bin, filepath.Join(dir, fmt.Sprint(i)), port, inner) }
	}
	return measure()
}

// play has every variant run once in every round and shape, and once more before, to warm up.
func play(all []*variant, shapes []shape, rounds int, order *rand.Rand) error {
	shuffled := slices.Clone(all)
	for round := range rounds + 1 {
		for _, s := range shapes {
			order.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			for _, v := range shuffled {
				r, err := v.run(s)
				if err != nil {
					return fmt.Errorf("%s: %w", v.name, err)
				}
				if round > 0 {
					v.runs[s] = append(v.runs[s], r)
				}
			}
		}
	}
	return nil
}

// show prints what came of the runs of one shape: CPU time and commits are those of one message.
func show(all []*variant, s shape) {
	fmt.Printf("%-32s %10s  %-20s %6s %8s %10s %8s\n", s, "messages/s", "ratio", "idle", "CPU ms", "policyd ms", "commits")
	for _, v := range all {
		of := func(part func(run) float64) float64 {
			var list []float64
			for _, r := range v.runs[s] {
				list = append(list, part(r))
			}
			return median(list)
		}
		ratio := ""
		if v.against != nil {
			list := v.ratios(s)
			middle, quarter := median(list), len(list)/4
			ratio = fmt.Sprintf("%.3f (%.3f-%.3f)", middle, list[quarter], list[len(list)-1-quarter])
		}
		fmt.Printf("%-32s %10.0f  %-20s %5.0f%% %8.2f", v.name, of(func(r run) float64 { return r.rate }), ratio,
			100*of(func(r run) float64 { return r.idle }), of(func(r run) float64 { return r.machine }))
		if v.service != nil {
			fmt.Printf(" %10.3f %8.3f", of(func(r run) float64 { return r.policyd }), of(func(r run) float64 { return r.commits }))
		}
		fmt.Println()
	}
}

// alone is how much later a message is accepted beside which no other comes, and how long the disk takes at that time.
func alone(plain, wired *variant, tries int, order *rand.Rand, dir string) error {
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return err
	}
	defer f.Close()
	var without, with, fsync []float64
	steps := []struct {
		do   func() error
		took *[]float64
	}{
		{func() error { return plain.send(1, 1, one) }, &without},
		{func() error { return wired.send(1, 1, one) }, &with},
		{func() error { return durably(f) }, &fsync},
	}
	for range tries {
		order.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
		for _, s := range steps {
			begun := time.Now()
			if err := s.do(); err != nil {
				return err
			}
			*s.took = append(*s.took, time.Since(begun).Seconds()*1000)
		}
	}
	fmt.Printf("a message alone takes %.2f ms, and %.2f ms with mailbag; an fsync takes %.2f ms\n", median(without), median(with), median(fsync))
	atMost("a message alone: with - without - an fsync", median(with)-median(without)-median(fsync), 2, " ms")
	return nil
}

// median sorts the list as well.
func median(list []float64) float64 {
	slices.Sort(list)
	return (list[len(list)/2] + list[(len(list)-1)/2]) / 2
}
