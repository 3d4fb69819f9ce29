package postfix

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Lifetimes are how long Postfix kept mail before setup raised that for the accounts' hold times.
type Lifetimes struct {
	Message Lifetime // maximal_queue_lifetime
	Bounce  Lifetime // bounce_queue_lifetime, of mail with the null sender
}

// A Lifetime is one that setup raised; the zero value is one that it left alone, which Postfix still keeps to.
type Lifetime struct {
	Raised bool
	Was    time.Duration
}

// FormerLifetimes returns what setup raised, as far as its values still stand in main.cf.
func (in Instance) FormerLifetimes(ctx context.Context) (Lifetimes, error) {
	path, err := in.formerPath(ctx)
	if err != nil {
		return Lifetimes{}, err
	}
	old, err := readFormer(path)
	if err != nil {
		return Lifetimes{}, err
	}
	var all Lifetimes
	for name, to := range map[string]*Lifetime{"maximal_queue_lifetime": &all.Message, "bounce_queue_lifetime": &all.Bounce} {
		was, ours := old.Main[name]
		if !ours {
			continue
		}
		explicit, err := in.run(ctx, "", "postconf", "-n", name)
		if err != nil {
			return Lifetimes{}, fmt.Errorf("%w: %w", ErrBroken, err)
		}
		if now, set := assignments(explicit)[name]; !set || now != was.Ours {
			continue
		}
		// Its text is put back for a moment, so that Postfix expands what it names.
		text, err := in.run(ctx, "", "postconf", "-xh", "-o", name+"="+was.Was, name)
		if err != nil {
			return Lifetimes{}, fmt.Errorf("%w: %w", ErrBroken, err)
		}
		life, err := period(strings.TrimSpace(text))
		if err != nil {
			return Lifetimes{}, fmt.Errorf("the former value of %s: %w", name, err)
		}
		*to = Lifetime{true, life}
	}
	return all, nil
}
