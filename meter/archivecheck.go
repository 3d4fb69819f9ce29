package meter

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// CheckEvidence returns which of this host's newest files of evidence are not there, or not as they were written; those of another
// host are on that.
func (l *Ledger) CheckEvidence(ctx context.Context, newest int) (faults []string, err error) {
	all, err := l.archives(ctx, "", pastAll)
	all = slices.DeleteFunc(all, func(a archive) bool { return a.host != l.opt.Host })
	for _, a := range all[max(0, len(all)-newest):] {
		if err := l.verify(a); err != nil {
			faults = append(faults, err.Error())
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return faults, err
}

// evidenceOf is what was counted for an account on a day, or in a month for a domain.
type evidenceOf struct {
	when    string
	account int64
	domain  string
}

// evidenceSums are sums of rows.
type evidenceSums map[evidenceOf]Usage

func (s evidenceSums) add(of evidenceOf, u Usage) {
	sum := s[of]
	s[of] = Usage{sum.Messages + u.Messages, sum.Bytes + u.Bytes}
}

// addRow adds a row to that of its day, and of the month to those of its domains.
func (s evidenceSums) addRow(months evidenceSums, day string, r evidenceRow) error {
	var domains []string
	if err := json.Unmarshal([]byte(r.domains), &domains); err != nil {
		return err
	}
	s.add(evidenceOf{day, r.account, ""}, Usage{1, r.size})
	for _, domain := range domains {
		months.add(evidenceOf{day[:len("2006-01")], r.account, domain}, Usage{1, r.size})
	}
	return nil
}

// checkArchive reads all files of this host, and compares them and what the ledger has besides with the usage.
func (l *Ledger) checkArchive(ctx context.Context) (faults []string, err error) {
	all, err := l.archives(ctx, "", pastAll)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	days, months := evidenceSums{}, evidenceSums{}
	// What came late, or stayed. As long as a file is not cleared its rows are in the ledger too.
	for rows, err := range l.rows(ctx, `
		SELECT m.day, m.account, m.size, m.domains FROM message m JOIN archive a ON a.day = m.day AND a.host = m.host WHERE a.cleared`) {
		var day string
		var r evidenceRow
		if err == nil {
			err = rows.Scan(&day, &r.account, &r.size, &r.domains)
		}
		if err == nil {
			err = days.addRow(evidenceSums{}, day, r)
		}
		if err != nil {
			return nil, err
		}
	}
	for rows, err := range l.rows(ctx, `
		SELECT substr(day, 1, 7), account, value, count(*), sum(size) FROM message AS m, json_each(domains)
		WHERE NOT EXISTS (SELECT 1 FROM archive WHERE day = m.day AND host = m.host AND NOT cleared) GROUP BY 1, 2, 3`) {
		var of evidenceOf
		var u Usage
		if err == nil {
			err = rows.Scan(&of.when, &of.account, &of.domain, &u.Messages, &u.Bytes)
		}
		if err != nil {
			return nil, err
		}
		months.add(of, u)
	}
	for i, a := range all {
		if a.host == l.opt.Host {
			err := l.verify(a)
			if err == nil {
				err = l.readEvidence(&a, func(r evidenceRow) error { return days.addRow(months, a.day, r) })
			}
			if err != nil {
				faults = append(faults, l.lackingEvidence(a, err).Error())
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		}
		if i+1 < len(all) && all[i+1].day == a.day {
			continue
		}
		less, err := l.lessThan(ctx, days, a.day, " on ", "SELECT account, '', messages, bytes FROM usage WHERE day = ? AND account IN (SELECT value FROM json_each(?))")
		if err != nil {
			return nil, err
		}
		faults = append(faults, less...)
		if i+1 < len(all) && all[i+1].day[:len("2006-01")] == a.day[:len("2006-01")] {
			continue
		}
		less, err = l.lessThan(ctx, months, a.day[:len("2006-01")], " in ", "SELECT account, domain, messages, bytes FROM domain_usage WHERE month = ? AND account IN (SELECT value FROM json_each(?))")
		if err != nil {
			return nil, err
		}
		faults = append(faults, less...)
	}
	return faults, nil
}

// lessThan says of which sums of a time the usage is less, and forgets them. used selects that by the time and accounts.
func (l *Ledger) lessThan(ctx context.Context, sums evidenceSums, when, on, used string) (faults []string, err error) {
	left := evidenceSums{}
	accounts := map[int64]bool{}
	for of, u := range sums {
		if of.when == when {
			left[of] = u
			accounts[of.account] = true
			delete(sums, of)
		}
	}
	for rows, err := range l.rows(ctx, used, when, asJSON(slices.Sorted(maps.Keys(accounts)))) {
		of := evidenceOf{when: when}
		var u Usage
		if err == nil {
			err = rows.Scan(&of.account, &of.domain, &u.Messages, &u.Bytes)
		}
		if err != nil {
			return nil, err
		}
		if evidence := left[of]; evidence.Messages <= u.Messages && evidence.Bytes <= u.Bytes {
			delete(left, of)
		}
	}
	for of := range left {
		var name string
		if err := l.row(ctx, "SELECT name FROM account WHERE id = ?", of.account).Scan(&name); err != nil {
			return nil, err
		}
		if of.domain != "" {
			name += " for " + of.domain
		}
		faults = append(faults, fmt.Sprintf("usage is less than its evidence: %s%s%s", name, on, when))
	}
	slices.Sort(faults)
	return faults, nil
}
