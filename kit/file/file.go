// Package file follows files that change while the program runs.
//
// Job: telling when a file's content is another.
//
// Not its job: what the content means.
//
// Invariants: a content is told once; a file that cannot be read, as in the
// moment of its being replaced, is looked at again later.
package file

import (
	"bytes"
	"context"
	"os"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
)

// Follow calls changed with the content of a file each time it differs from have,
// which is what was read before. It looks at the file's state only, until that
// changes, so that following many files costs nothing worth speaking of. It ends
// with ctx.
func Follow(ctx context.Context, path string, have []byte, every time.Duration, changed func(content []byte)) error {
	var last stamp
	for clock.Sleep(ctx, every) == nil {
		now, err := stampOf(path)
		if err != nil || now == last {
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		last = now
		if !bytes.Equal(content, have) {
			have = content
			changed(content)
		}
	}
	return nil
}

// stamp is what changes when a file is written or replaced.
type stamp struct {
	size    int64
	changed time.Time
}

func stampOf(path string) (stamp, error) {
	i, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{i.Size(), i.ModTime()}, nil
}
