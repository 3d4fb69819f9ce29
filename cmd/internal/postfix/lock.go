package postfix

import (
	"context"
	"fmt"
	"path/filepath"

	"mailbag/cmd/internal/wholefile"
)

// Lock waits until nobody else plans changes of this Postfix, and keeps others from it until unlock is called: an operator's
// setup and mailbag's own stepping aside may come together. Neither sees what postconf does by itself.
func (in Instance) Lock(ctx context.Context) (unlock func(), err error) {
	path, err := in.formerPath(ctx)
	if err != nil {
		return nil, err
	}
	unlock, err = wholefile.Lock(ctx, filepath.Dir(path))
	if err != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("the configuration of Postfix cannot be locked: %w", err)
	}
	return unlock, err
}
