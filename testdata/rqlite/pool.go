package rqlitetest

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	_ "github.com/mattn/go-sqlite3"
)

// A Pool has nodes, each alone, that many tests use one after another: to empty one takes a fraction of what a start does. The zero
// value has none.
type Pool struct {
	mu   sync.Mutex
	dir  string
	all  []*Nodes
	idle []*Nodes
}

// Take returns a node without tables.
func (p *Pool) Take(ctx context.Context) (*Nodes, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := len(p.idle) - 1; last >= 0 {
		nodes := p.idle[last]
		p.idle = p.idle[:last]
		return nodes, nil
	}
	if p.dir == "" {
		dir, err := os.MkdirTemp("", "rqlite-")
		if err != nil {
			return nil, err
		}
		p.dir = dir
	}
	nodes, err := Start(ctx, filepath.Join(p.dir, fmt.Sprint(len(p.all)+1)), 1, Options{})
	if err == nil {
		p.all = append(p.all, nodes)
	}
	return nodes, err
}

// Give has others take a node whose tables nobody wants any more. One that does not become empty is ended.
func (p *Pool) Give(nodes *Nodes) {
	if err := nodes.empty(); err != nil {
		nodes.Stop()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, nodes)
}

// Stop ends all nodes, and leaves nothing of them.
func (p *Pool) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, nodes := range p.all {
		nodes.Stop()
	}
	if p.dir != "" {
		_ = os.RemoveAll(p.dir)
	}
}

// nothing is a database file without tables.
var nothing = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "rqlite-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "empty")
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if _, err := db.Exec("VACUUM"); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// empty has all nodes lose their tables.
func (n *Nodes) empty() error {
	file, err := nothing()
	if err != nil {
		return err
	}
	answer, err := http.Post("http://"+n.All[0].HTTP+"/db/load", "application/octet-stream", bytes.NewReader(file))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK || strings.Contains(string(text), `"error"`) {
		return fmt.Errorf("%s cannot be emptied: %s %s", n.All[0].HTTP, answer.Status, text)
	}
	return nil
}
