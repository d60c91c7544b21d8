package etcd

import (
	"context"
	"fmt"
)

// Size is how many bytes the database takes on the disk of the member that is
// asked first; 0 while a member in this process does not run.
func (s *Store) Size(ctx context.Context) (int64, error) {
	switch b := s.b.(type) {
	case *local:
		return b.srv.DBSize(), nil
	case *remote:
		r, err := b.c.Status(ctx, b.c.Endpoints()[0])
		if err != nil {
			return 0, fmt.Errorf("etcd: size: %w", err)
		}
		return r.DbSize, nil
	}
	return 0, nil
}
