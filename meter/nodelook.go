package meter

import (
	"context"
	"errors"
	"sync"
)

// A Node is one of those that have a ledger, as somebody looked at it.
type Node struct {
	URL     string
	Trouble error // why it is of no use, such as that it was not in touch with its leader lately; nil: it is
	Lax     bool  // it would not enforce foreign keys, were it the leader
}

// Nodes looks at each node of the ledger; a ledger in a file has none.
func (l *Ledger) Nodes(ctx context.Context) []Node {
	e, ok := l.engine.(*rqlite)
	if !ok {
		return nil
	}
	all := make([]Node, len(e.nodes.urls))
	var looks sync.WaitGroup
	for i, url := range e.nodes.urls {
		looks.Go(func() {
			all[i] = Node{URL: url}
			enforced := 0
			all[i].Trouble = e.lookAt(ctx, url, &enforced)
			all[i].Lax = all[i].Trouble == nil && enforced == 0
		})
	}
	looks.Wait()
	return all
}

func (e *rqlite) lookAt(ctx context.Context, url string, enforced *int) error {
	q := query{statement{sql: "SELECT foreign_keys FROM pragma_foreign_keys"}, func(r scanner) error { return r.Scan(enforced) }}
	body, err := encode([]statement{q.statement})
	if err != nil {
		return err
	}
	const path = "/db/query?noparse&level=none&freshness_strict&freshness=" + fresh
	err = e.nodes.ask(ctx, url, request{path: path, body: body, answer: results(1, []query{q}, unread)}, attempt)
	var f *failure
	if errors.As(err, &f) {
		return f.cause
	}
	return err
}
