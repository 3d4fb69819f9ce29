package meter

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestANoticeIsMadeOnceForItsLevel(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	acme, globex := d.Account("acme").ID, d.Account("globex").ID
	notice := func(account int64, subject string, level int64) Notice {
		return Notice{Account: account, Subject: subject, Level: level, Recipients: []string{"boss@elsewhere.example", "ops@provider.example"}, Message: "Subject: x\n\ny\n"}
	}
	add := func(notices ...Notice) {
		t.Helper()
		if err := l.AddNotices(t.Context(), notices...); err != nil {
			t.Fatal(err)
		}
	}
	unsent := func() (levels []int64) {
		t.Helper()
		list, err := l.UnsentNotices(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range list {
			levels = append(levels, n.Level)
		}
		return levels
	}
	first := notice(acme, "2026-02", 80)
	add(first)
	list, err := l.UnsentNotices(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("unsent are %+v, %v", list, err)
	}
	first.ID = list[0].ID
	if diff := cmp.Diff(first, list[0]); diff != "" {
		t.Errorf("what is unsent (-want +got):\n%s", diff)
	}
	add(notice(acme, "2026-02", 80), notice(globex, "2026-02", 80), notice(acme, "waiting", 50))
	add(notice(acme, "2026-02", 300))
	add(notice(acme, "2026-02", 200), notice(acme, "2026-02", 300))
	if diff := cmp.Diff([]int64{80, 80, 50, 300}, unsent()); diff != "" {
		t.Errorf("unsent (-want +got):\n%s", diff)
	}
	for _, n := range list {
		if err := l.NoticeSent(t.Context(), n.ID, noon); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]int64{80, 50, 300}, unsent()); diff != "" {
		t.Errorf("unsent (-want +got):\n%s", diff)
	}
	levels, err := l.Noticed(t.Context())
	want := map[Occasion]int64{{acme, "2026-02"}: 300, {globex, "2026-02"}: 80, {acme, "waiting"}: 50}
	if diff := cmp.Diff(want, levels); diff != "" || err != nil {
		t.Errorf("noticed is %v (-want +got):\n%s", err, diff)
	}

	// An occasion that is over and comes again is another.
	if err := l.EndOccasions(t.Context(), Occasion{acme, "waiting"}); err != nil {
		t.Fatal(err)
	}
	add(notice(acme, "waiting", 50), notice(acme, "2026-02", 80))
	if diff := cmp.Diff([]int64{80, 50, 300, 50}, unsent()); diff != "" {
		t.Errorf("unsent (-want +got):\n%s", diff)
	}
}

func TestANoticeOfSeveralAccountsIsMadeEachTime(t *testing.T) {
	t.Parallel()
	l, d := twoAccounts(t, Options{})
	digest := Notice{Subject: "acme and globex", Recipients: []string{"ops@provider.example"}, Message: "Subject: x\n\ny\n"}
	told := Notice{Account: d.Account("acme").ID, Subject: "silence", Level: 1}
	for range 2 {
		if err := l.AddNotices(t.Context(), told, digest); err != nil {
			t.Fatal(err)
		}
	}
	unsent, err := l.UnsentNotices(t.Context())
	if err != nil || len(unsent) != 2 || unsent[0].Account != 0 || unsent[1].Subject != digest.Subject {
		t.Errorf("unsent are %+v, %v; want the notice of both accounts twice, and of acme's own nothing", unsent, err)
	}
	levels, err := l.Noticed(t.Context())
	if diff := cmp.Diff(map[Occasion]int64{{told.Account, told.Subject}: 1}, levels); diff != "" || err != nil {
		t.Errorf("noticed is %v (-want +got):\n%s", err, diff)
	}
}
