package powerloss

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// answers are what was asked for and what was answered, by a word that each has of its own.
type answers struct {
	mu     sync.Mutex
	number int
	state  map[string]state
}

// A state is how far something came.
type state int

const (
	asked    state = iota + 1
	answered       // that it is there
	removing
	removed
)

// ask begins something new.
func (a *answers) ask() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state == nil {
		a.state = map[string]state{}
	}
	a.number++
	word := fmt.Sprintf("Q%08d", a.number)
	a.state[word] = asked
	return word
}

func (a *answers) is(word string, s state) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state == nil {
		a.state = map[string]state{}
	}
	a.state[word] = s
}

func (a *answers) count(s state) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, of := range a.state {
		if of == s {
			n++
		}
	}
	return n
}

// compare says what is not as it was answered, of the words that are there now. From then on what is there is there.
func (a *answers) compare(there []string) (wrong []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	times := map[string]int{}
	for _, word := range there {
		times[word]++
	}
	for _, word := range slices.Sorted(maps.Keys(times)) {
		switch {
		case a.state[word] == 0:
			wrong = append(wrong, word+" is there and was never asked for")
		case a.state[word] == removed:
			wrong = append(wrong, word+" is there again")
		case times[word] > 1:
			wrong = append(wrong, fmt.Sprintf("%s is there %d times", word, times[word]))
		}
	}
	for _, word := range slices.Sorted(maps.Keys(a.state)) {
		switch s := a.state[word]; {
		case times[word] > 0:
			a.state[word] = max(s, answered)
			if s == removing {
				a.state[word] = answered
			}
		case s == answered:
			wrong = append(wrong, word+" was answered and is not there")
			a.state[word] = removed
		case s == removing:
			a.state[word] = removed
		}
	}
	return wrong
}
