package apiserver

import (
	"context"
	"fmt"

	"github.com/sampan-dev/sampan/apiserver/fairness"
	"github.com/sampan-dev/sampan/apiserver/request"
)

// makeFair makes what shares the server's capacity, if that is asked for.
func (s *Server) makeFair() error {
	if !s.c.Fairness {
		return nil
	}
	if s.c.MaxReads+s.c.MaxWrites <= 0 {
		return fmt.Errorf("apiserver: config: maxRequestsInFlight+maxMutatingRequestsInFlight=%d must be positive because they configure the API Priority and Fairness feature", s.c.MaxReads+s.c.MaxWrites)
	}
	var err error
	s.fair, err = fairness.New(fairness.Config{Seats: s.c.MaxReads + s.c.MaxWrites, Wait: s.c.Timeout / 4}, fairness.Deps{
		Back: s.engine.Backend(), Size: s.d.Size, Inflight: s.metrics.serving, Dropped: s.metrics.refused, Metrics: s.d.Metrics, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.debug = s.fair.Debug()
	return nil
}

// fairHooks are the objects of priority and fairness, made and in force.
func (s *Server) fairHooks() []request.Hook {
	if s.fair == nil {
		return nil
	}
	return []request.Hook{
		{Name: "priority-and-fairness-config-producer", Fn: fairness.Bootstrap},
		{Name: "priority-and-fairness-config-consumer", Fn: func(ctx context.Context, _ request.Backend) error { return s.fair.Synced(ctx) }},
		{Name: "priority-and-fairness-filter", Fn: func(context.Context, request.Backend) error { return nil }},
	}
}
