package podautoscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sampan-dev/sampan/client"
)

// The groups that measure, as others serve them.
const (
	resourceMetrics = "/apis/metrics.k8s.io/v1beta1"
	customMetrics   = "/apis/custom.metrics.k8s.io/v1beta2"
	externalMetrics = "/apis/external.metrics.k8s.io/v1beta1"
)

type meter struct{ c client.Interface }

func (m meter) get(ctx context.Context, path string, query url.Values, into any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	data, err := m.c.Raw(ctx, "GET", path, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

func selectorQuery(key string, s labels.Selector) url.Values {
	q := url.Values{}
	if s != nil && !s.Empty() {
		q.Set(key, s.String())
	}
	return q
}

// used is what pods, or one container of each, use of a resource.
func (m meter) used(ctx context.Context, ns string, sel labels.Selector, container string, name corev1.ResourceName) (map[string]sample, error) {
	var list struct {
		Items []struct {
			Metadata   metav1.ObjectMeta `json:"metadata"`
			Timestamp  metav1.Time       `json:"timestamp"`
			Window     metav1.Duration   `json:"window"`
			Containers []struct {
				Name  string              `json:"name"`
				Usage corev1.ResourceList `json:"usage"`
			} `json:"containers"`
		} `json:"items"`
	}
	fail := func(err error) (map[string]sample, error) {
		return nil, fmt.Errorf("unable to get metrics for resource %s: %w", name, err)
	}
	if err := m.get(ctx, resourceMetrics+"/namespaces/"+ns+"/pods", selectorQuery("labelSelector", sel), &list); err != nil {
		return fail(fmt.Errorf("unable to fetch metrics from resource metrics API: %w", err))
	}
	if len(list.Items) == 0 {
		return fail(errors.New("no metrics returned from resource metrics API"))
	}
	out := map[string]sample{}
	for _, p := range list.Items {
		s, complete := sample{at: p.Timestamp.Time, window: p.Window.Duration}, true
		found := container == ""
		for _, c := range p.Containers {
			if container != "" && c.Name != container {
				continue
			}
			found = true
			q, ok := c.Usage[name]
			complete = complete && ok
			s.value += q.MilliValue()
		}
		if !found {
			return fail(fmt.Errorf("failed to get container metrics: container %s not present in metrics for pod %s/%s", container, ns, p.Metadata.Name))
		}
		if complete {
			out[p.Metadata.Name] = s
		}
	}
	return out, nil
}

type customList struct {
	Items []struct {
		Described corev1.ObjectReference `json:"describedObject"`
		Timestamp metav1.Time            `json:"timestamp"`
		Window    *int64                 `json:"windowSeconds"`
		Value     resource.Quantity      `json:"value"`
	} `json:"items"`
}

// ofPods is a custom metric of pods.
func (m meter) ofPods(ctx context.Context, ns, name string, sel, of labels.Selector) (map[string]sample, error) {
	var list customList
	q := selectorQuery("labelSelector", sel)
	for k, v := range selectorQuery("metricLabelSelector", of) {
		q[k] = v
	}
	if err := m.get(ctx, customMetrics+"/namespaces/"+ns+"/pods/*/"+url.PathEscape(name), q, &list); err != nil {
		return nil, fmt.Errorf("unable to get metric %s: unable to fetch metrics from custom metrics API: %w", name, err)
	}
	if len(list.Items) == 0 {
		return nil, fmt.Errorf("unable to get metric %s: no metrics returned from custom metrics API", name)
	}
	out := map[string]sample{}
	for _, i := range list.Items {
		out[i.Described.Name] = sample{value: i.Value.MilliValue(), at: i.Timestamp.Time}
	}
	return out, nil
}

// ofObject is a custom metric of any one object.
func (m meter) ofObject(ctx context.Context, ns, name string, ref autoscalingv2.CrossVersionObjectReference, of labels.Selector, plural string) (int64, error) {
	var list customList
	path := customMetrics + "/namespaces/" + ns + "/" + plural + "/" + ref.Name + "/" + url.PathEscape(name)
	if ref.Kind == "Namespace" && !strings.Contains(ref.APIVersion, "/") {
		path = customMetrics + "/namespaces/" + ref.Name + "/metrics/" + url.PathEscape(name)
	}
	if err := m.get(ctx, path, selectorQuery("metricLabelSelector", of), &list); err != nil {
		return 0, fmt.Errorf("unable to get metric %s: %v on %s %s/%s", name, fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err), ref.Kind, ns, ref.Name)
	}
	if len(list.Items) == 0 {
		return 0, fmt.Errorf("unable to get metric %s: no metrics returned from custom metrics API on %s %s/%s", name, ref.Kind, ns, ref.Name)
	}
	return list.Items[0].Value.MilliValue(), nil
}

// outside is a metric of something outside the cluster: the sum of all series.
func (m meter) outside(ctx context.Context, ns, name string, of labels.Selector) (int64, error) {
	var list struct {
		Items []struct {
			Value resource.Quantity `json:"value"`
		} `json:"items"`
	}
	if err := m.get(ctx, externalMetrics+"/namespaces/"+ns+"/"+url.PathEscape(name), selectorQuery("labelSelector", of), &list); err != nil {
		return 0, fmt.Errorf("unable to get external metric %s/%s/%v: unable to fetch metrics from external metrics API: %w", ns, name, of, err)
	}
	if len(list.Items) == 0 {
		return 0, fmt.Errorf("unable to get external metric %s/%s/%v: no metrics returned from external metrics API", ns, name, of)
	}
	var sum int64
	for _, i := range list.Items {
		if sum += i.Value.MilliValue(); sum < 0 {
			return int64(^uint64(0) >> 1), nil
		}
	}
	return sum, nil
}
