package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/sampan-dev/sampan/kit/backoff"
	"github.com/sampan-dev/sampan/kit/clock"
)

// webhook posts events, as an EventList, to a server.
type webhook struct {
	c Webhook
}

func newWebhook(c Webhook) *webhook { return &webhook{c} }

func (*webhook) name() string { return "webhook" }

// attempts are how often upstream tries to send a batch.
const attempts = 5

func (w *webhook) store(ctx context.Context, events []*auditv1.Event) error {
	list := &auditv1.EventList{TypeMeta: metav1.TypeMeta{Kind: "EventList", APIVersion: auditv1.SchemeGroupVersion.String()}}
	for _, e := range events {
		item := *e
		item.TypeMeta = metav1.TypeMeta{}
		list.Items = append(list.Items, item)
	}
	body, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("webhook: encode: %w", err)
	}
	retry := backoff.Policy{First: w.c.Backoff, Max: time.Minute, Factor: 1.5}
	for n := 1; ; n++ {
		again, err := w.post(ctx, body)
		if err == nil || !again || n == attempts {
			return err
		}
		if clock.Sleep(ctx, clock.Jitter(retry.After(n), 0.2)) != nil {
			return err
		}
	}
}

// post sends a body and says whether it is worth trying again.
func (w *webhook) post(ctx context.Context, body []byte) (again bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.c.URL, bytes.NewReader(body))
	if err != nil {
		return false, fmt.Errorf("webhook: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := w.c.Client.Do(r)
	if err != nil {
		return ctx.Err() == nil, fmt.Errorf("webhook: %w", err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	if resp.StatusCode < 300 {
		return false, nil
	}
	return resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500, fmt.Errorf("webhook: %s", resp.Status)
}
