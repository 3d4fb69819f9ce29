package postfix

import (
	"context"
	"fmt"
	"strings"

	"mailbag/cmd/internal/mta"
)

// FormerLifetimes returns what setup raised, as far as its values still stand in main.cf.
func (in Instance) FormerLifetimes(ctx context.Context) (mta.Lifetimes, error) {
	path, err := in.formerPath(ctx)
	if err != nil {
		return mta.Lifetimes{}, err
	}
	old, err := readFormer(path)
	if err != nil {
		return mta.Lifetimes{}, err
	}
	var all mta.Lifetimes
	for name, to := range map[string]*mta.Lifetime{"maximal_queue_lifetime": &all.Message, "bounce_queue_lifetime": &all.Bounce} {
		was, ours := old.Main[name]
		if !ours {
			continue
		}
		explicit, err := in.run(ctx, "", "postconf", "-n", name)
		if err != nil {
			return mta.Lifetimes{}, fmt.Errorf("%w: %w", errBroken, err)
		}
		if now, set := assignments(explicit)[name]; !set || now != was.Ours {
			continue
		}
		// Its text is put back for a moment, so that Postfix expands what it names.
		text, err := in.run(ctx, "", "postconf", "-xh", "-o", name+"="+was.Was, name)
		if err != nil {
			return mta.Lifetimes{}, fmt.Errorf("%w: %w", errBroken, err)
		}
		life, err := period(strings.TrimSpace(text))
		if err != nil {
			return mta.Lifetimes{}, fmt.Errorf("the former value of %s: %w", name, err)
		}
		*to = mta.Lifetime{Raised: true, Was: life}
	}
	return all, nil
}
