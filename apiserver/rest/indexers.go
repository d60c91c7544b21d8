package rest

import "github.com/sampan-dev/sampan/storage"

// Indexers are the indexes that a store may keep of the kind's records: those
// field selectors that the kind names.
func (s *Served) Indexers() map[string]func(*storage.Record) []string {
	out := map[string]func(*storage.Record) []string{}
	for _, name := range s.Info.Indexes {
		out[name] = func(r *storage.Record) []string {
			obj, err := s.object(r)
			if err != nil {
				return nil // what cannot be read is found by its key alone
			}
			value, _ := s.Kind.Field(obj, name)
			return []string{value}
		}
	}
	return out
}
