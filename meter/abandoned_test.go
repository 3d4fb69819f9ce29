package meter

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestANodeEndsAReadThatNobodyWaitsForAnyMore asks what has no end. Were it to go on, each attempt would leave a node one more to do,
// until it has no time for its leader.
func TestANodeEndsAReadThatNobodyWaitsForAnyMore(t *testing.T) {
	t.Parallel()
	needsFile(t)
	e := newRqlite(nodeFor(t), Options{})
	defer e.close()
	body, err := encode([]statement{{sql: "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"}})
	if err != nil {
		t.Fatal(err)
	}
	err = e.nodes.do(t.Context(), request{path: "/db/query?transaction&noparse", body: body, slow: time.Second, patience: 300 * time.Millisecond, answer: results(1, nil, unread)})
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, errUnknown) {
		t.Errorf("it says %v, which is not of a read that has no answer", err)
	}
	eventually(t, "the node ends the read", func() bool { return !steps(t, e.nodes.urls[0]) })
}

// steps reports whether a node is at a statement.
func steps(t *testing.T, url string) bool {
	t.Helper()
	answer, err := http.Get(url + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	all, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer.Status, err)
	}
	return strings.Contains(string(all), "sqlite3_step")
}
