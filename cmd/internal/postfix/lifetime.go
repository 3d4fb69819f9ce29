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
		text, err := in.expandedAs(ctx, name, was.Was)
		if err != nil {
			return mta.Lifetimes{}, err
		}
		life, err := period(text)
		if err != nil {
			return mta.Lifetimes{}, fmt.Errorf("the former value of %s: %w", name, err)
		}
		*to = mta.Lifetime{Raised: true, Was: life}
	}
	return all, nil
}

// expandedAs is what a parameter would be with another text. Postfix does not list a parameter of the operator's own that nothing
// names, so it is put there for a moment.
func (in Instance) expandedAs(ctx context.Context, name, text string) (string, error) {
	out, err := in.run(ctx, "", "postconf", "-xh", "-o", name+"="+text, name)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errBroken, err)
	}
	return strings.TrimSpace(out), nil
}
