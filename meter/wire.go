package meter

import (
	"bytes"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// encode makes the body of a request: an array of statements, each an array of its text and its parameters.
func encode(batch []statement) ([]byte, error) {
	lines := make([][]any, len(batch))
	for i, s := range batch {
		text := s.sql
		line := make([]any, 1, 1+len(s.args))
		named := map[string]any{}
		for at, arg := range s.args {
			placeholder := "?" + strconv.Itoa(at+1)
			n, isNamed := arg.(sql.NamedArg)
			if isNamed {
				placeholder, arg = ":"+n.Name, n.Value
			}
			value, err := driver.DefaultParameterConverter.ConvertValue(arg)
			if err != nil {
				return nil, fmt.Errorf("the parameter %s of %s: %w", placeholder, s.sql, err)
			}
			switch v := value.(type) {
			case []byte: // as an array of numbers; encoding/json makes base64 of it
				if v == nil {
					value = nil
					break
				}
				value = asNumbers(v)
			case float64:
				return nil, fmt.Errorf("the parameter %s of %s is a fraction, which a ledger has none of", placeholder, s.sql)
			case string:
				if looksLikeBLOB(v) {
					value = asNumbers([]byte(v))
					text = asText(text, placeholder)
				}
			}
			if isNamed {
				named[n.Name] = value
			} else {
				line = append(line, value)
			}
		}
		if len(named) > 0 {
			line = append(line, named)
		}
		line[0] = text
		lines[i] = line
	}
	return json.Marshal(lines)
}

func asNumbers(octets []byte) []int {
	numbers := make([]int, len(octets))
	for i, octet := range octets {
		numbers[i] = int(octet)
	}
	return numbers
}

// looksLikeBLOB reports whether rqlite takes a text for the octets that it names.
func looksLikeBLOB(text string) bool {
	text = strings.TrimSpace(text)
	if len(text) < 3 || text[0] != 'x' && text[0] != 'X' || text[1] != '\'' || text[len(text)-1] != '\'' {
		return false
	}
	_, err := hex.DecodeString(text[2 : len(text)-1])
	return err == nil
}

// asText has SQLite make a text of a parameter of octets.
func asText(statement, placeholder string) string {
	n := 0
	return lexeme.ReplaceAllStringFunc(statement, func(found string) string {
		name := found
		switch {
		case found == "?":
			n++
			name = "?" + strconv.Itoa(n)
		case found[0] == '?':
			n, _ = strconv.Atoi(found[1:])
		}
		if name == placeholder {
			return "CAST(" + name + " AS TEXT)"
		}
		return found
	})
}

// lexeme matches placeholders, and what they may not be looked for in.
var lexeme = regexp.MustCompile(`'[^']*'|"[^"]*"|--[^\n]*|\?[0-9]*|:[a-z_]+`)

// result is that of one statement.
type result struct {
	Error  string
	Values []rqliteRow
}

// results reads the results of so many statements, and has the rows of queries read. failed makes an error of the word with which
// a statement failed.
func results(statements int, queries []query, failed func(word string) error) func(io.Reader) error {
	return func(answer io.Reader) error {
		var all struct {
			Error   string
			Results []result
		}
		if err := json.NewDecoder(io.LimitReader(answer, maxAnswer)).Decode(&all); err != nil {
			return &failure{cause: fmt.Errorf("its answer cannot be read: %w", err), heard: true}
		}
		if all.Error != "" {
			return &failure{cause: errors.New(all.Error), heard: true}
		}
		for _, r := range all.Results {
			if r.Error != "" {
				return failed(r.Error)
			}
		}
		if len(all.Results) != statements { // whoever says so little is no node
			return &failure{cause: fmt.Errorf("of %d statements it answers %d", statements, len(all.Results)), heard: true}
		}
		for i, q := range queries {
			for _, row := range all.Results[i].Values {
				if err := q.row(row); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// failed is of a statement that writes. With a constraint all nodes fail in the same way; with what is wrong with one node, such
// as a full disk, the others may have done all of the batch.
func failed(word string) error {
	switch {
	case strings.Contains(word, "constraint failed"), strings.HasSuffix(word, "already exists"), word == ErrMonthClosed.Error(), word == invoiceStays, strings.HasPrefix(word, movedTo):
		return violation(word)
	case strings.HasPrefix(word, "no such "):
		return fmt.Errorf("%w: %s", ErrUnavailable, word)
	}
	return &failure{cause: errors.New(word), heard: true}
}

// errLacking is with the word of a node that has not got what it is asked for: it has just come up, and not caught up with the others.
var errLacking = errors.New("the node lacks tables")

// unread is of a statement that reads.
func unread(word string) error {
	if strings.HasPrefix(word, "no such ") {
		return &failure{cause: fmt.Errorf("%w: %s", errLacking, word), stays: true}
	}
	return &failure{cause: errors.New(word)}
}

// rqliteRow is a row as JSON has it: an array of numbers, texts, arrays of octets, and null.
type rqliteRow json.RawMessage

func (r *rqliteRow) UnmarshalJSON(text []byte) error {
	*r = slices.Clone(text)
	return nil
}

func (r rqliteRow) Scan(into ...any) error {
	var values []any
	in := json.NewDecoder(bytes.NewReader(r))
	in.UseNumber()
	if err := in.Decode(&values); err != nil {
		return unavailable(err)
	}
	if len(into) != len(values) {
		return fmt.Errorf("a row has %d columns, and %d are wanted", len(values), len(into))
	}
	for i, value := range values {
		if err := assign(into[i], value); err != nil {
			return fmt.Errorf("column %d of a row: %w", i+1, err)
		}
	}
	return nil
}

// assign copies a value to where a pointer points, as database/sql does.
func assign(into, value any) error {
	switch v := value.(type) {
	case json.Number:
		n, err := v.Int64()
		if err != nil {
			return err
		}
		value = n
	case []any:
		octets := make([]byte, len(v))
		for i, e := range v {
			n, _ := e.(json.Number)
			octet, err := strconv.ParseUint(string(n), 10, 8)
			if err != nil {
				return err
			}
			octets[i] = byte(octet)
		}
		value = octets
	}
	if s, ok := into.(sql.Scanner); ok {
		return s.Scan(value)
	}
	to := reflect.ValueOf(into).Elem()
	if to.Kind() == reflect.Pointer {
		if value == nil {
			to.SetZero()
			return nil
		}
		to.Set(reflect.New(to.Type().Elem()))
		return assign(to.Interface(), value)
	}
	switch v := value.(type) {
	case int64:
		switch {
		case to.CanInt() && !to.OverflowInt(v):
			to.SetInt(v)
			return nil
		case to.Kind() == reflect.Bool && (v == 0 || v == 1):
			to.SetBool(v == 1)
			return nil
		case to.Kind() == reflect.String:
			to.SetString(strconv.FormatInt(v, 10))
			return nil
		}
	case string:
		switch {
		case to.Kind() == reflect.String:
			to.SetString(v)
			return nil
		case to.Kind() == reflect.Slice && to.Type().Elem().Kind() == reflect.Uint8:
			to.SetBytes([]byte(v))
			return nil
		}
	case []byte:
		if to.Kind() == reflect.Slice && to.Type().Elem().Kind() == reflect.Uint8 {
			to.SetBytes(v)
			return nil
		}
	case nil:
		if to.Kind() == reflect.Slice {
			to.SetZero()
			return nil
		}
	}
	return fmt.Errorf("%v, which is %T, does not fit into %s", value, value, to.Type())
}
