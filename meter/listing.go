package meter

import "iter"

// paged yields a list that is read a page at a time, each from the row after the last one on; a zero row stands for the
// beginning. Nothing is open while the caller has a row, because it may keep it for as long as whoever reads its output
// likes: a read that stays open keeps the write-ahead log from being emptied.
func paged[Row any](read func(after Row) ([]Row, error)) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		var last Row
		for {
			rows, err := read(last)
			if err != nil {
				yield(*new(Row), err)
				return
			}
			if len(rows) == 0 {
				return
			}
			for _, last = range rows {
				if !yield(last, nil) {
					return
				}
			}
		}
	}
}

// latest selects the columns of the latest records of a table, r, newest first, with the account's name, a.name: of the
// account of that name, or of all where it is empty.
func latest(columns, table, key, account string, limit int) (string, []any) {
	text := "SELECT " + columns + " FROM " + table + " r JOIN account a ON a.id = r.account"
	var args []any
	if account != "" {
		text += " WHERE r.account = (SELECT id FROM account WHERE name = ?)"
		args = append(args, account)
	}
	return text + " ORDER BY r.began DESC, r." + key + " DESC LIMIT ?", append(args, limit)
}
