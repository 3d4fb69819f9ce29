package meter

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// answers is a node that answers without a network.
type answers func(*http.Request) (*http.Response, error)

func (a answers) RoundTrip(q *http.Request) (*http.Response, error) { return a(q) }

// TestALeaderThatIsChosenLateIsFound has nodes without one answer at once, so that there are many rounds before there is one.
func TestALeaderThatIsChosenLateIsFound(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]time.Duration{"in time": writesWithin - time.Second, "too late": writesWithin + 5*time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				chosen := answers(func(q *http.Request) (*http.Response, error) {
					if err := q.Context().Err(); err != nil {
						return nil, err
					}
					status, body := http.StatusServiceUnavailable, "leader not found"
					if time.Since(begun) >= at {
						status, body = http.StatusOK, `{"results":[{}]}`
					}
					return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(strings.NewReader(body))}, nil
				})
				n := &nodes{urls: []string{"http://a", "http://b"}, http: &http.Client{Transport: chosen}}
				err := n.do(t.Context(), request{path: execute, body: []byte("[]"), writes: true, within: writesWithin, slow: writesWithin, answer: results(1, nil, failed)})
				if late := at > writesWithin; late != errors.Is(err, ErrUnavailable) || late && !strings.Contains(err.Error(), "leader not found") || errors.Is(err, errUnknown) {
					t.Errorf("it ends with %v", err)
				}
			})
		})
	}
}
