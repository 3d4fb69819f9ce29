package thousands

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// TestLedger leaves one for programs to be tried with by hand: in the directory THOUSANDS, of ACCOUNTS accounts.
func TestLedger(t *testing.T) {
	dir := os.Getenv("THOUSANDS")
	if dir == "" {
		dir = t.TempDir()
	}
	accounts, err := strconv.Atoi(os.Getenv("ACCOUNTS"))
	if err != nil {
		accounts = 100
	}
	t.Log(Ledger(t, dir, accounts, time.Now()))
}
