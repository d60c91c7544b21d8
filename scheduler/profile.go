package scheduler

import (
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Weights say how much each score counts; 0 leaves it out.
type Weights struct {
	Taints, Prefer, Spread, Pull, Room, Balance, Locality int64
}

// Profile is how the pods that ask for one name are placed.
type Profile struct {
	Name    string
	Weights Weights
	// Pack prefers nodes that are used most, so that others become empty.
	Pack bool
	// CPU and Memory weigh what counts as room.
	CPU, Memory int64
	// NoSpread leaves out the spreading of pods that do not ask for it.
	NoSpread bool
}

// DefaultProfile is upstream's.
func DefaultProfile(name string) Profile {
	return Profile{Name: name, Weights: Weights{Taints: 3, Prefer: 2, Spread: 2, Pull: 2, Room: 1, Balance: 1, Locality: 1}, CPU: 1, Memory: 1}
}

// score finds the weight that a plugin of upstream's has, nil for one that does not score.
func (w *Weights) score(plugin string) *int64 {
	switch plugin {
	case "TaintToleration":
		return &w.Taints
	case "NodeAffinity":
		return &w.Prefer
	case "PodTopologySpread":
		return &w.Spread
	case "InterPodAffinity":
		return &w.Pull
	case "NodeResourcesFit":
		return &w.Room
	case "NodeResourcesBalancedAllocation":
		return &w.Balance
	case "ImageLocality":
		return &w.Locality
	}
	return nil
}

// alwaysOn are the plugins that every profile has.
var alwaysOn = []string{
	"PrioritySort", "SchedulingGates", "NodeUnschedulable", "NodeName", "NodePorts", "VolumeRestrictions", "NodeVolumeLimits", "VolumeBinding", "VolumeZone",
	"DefaultPreemption", "DefaultBinder", "DynamicResources",
}

// ProfileFile is a profile as a KubeSchedulerConfiguration spells it.
type ProfileFile struct {
	SchedulerName string                 `json:"schedulerName"`
	Plugins       map[string]PluginsFile `json:"plugins"` // by extension point
	PluginConfig  []PluginConfigFile     `json:"pluginConfig"`
	// PercentageOfNodesToScore is accepted: all nodes are looked at anyhow.
	PercentageOfNodesToScore *int32 `json:"percentageOfNodesToScore"`
}

// PluginsFile changes the plugins of one extension point.
type PluginsFile struct {
	Enabled []struct {
		Name   string `json:"name"`
		Weight int64  `json:"weight"`
	} `json:"enabled"`
	Disabled []struct {
		Name string `json:"name"`
	} `json:"disabled"`
}

// PluginConfigFile is a plugin's arguments.
type PluginConfigFile struct {
	Name string          `json:"name"`
	Args json.RawMessage `json:"args"`
}

// Profile reads a profile. What this scheduler cannot do is an error: a rule
// left out in silence places pods wrongly.
func (f *ProfileFile) Profile() (Profile, error) {
	p := DefaultProfile(f.SchedulerName)
	if p.Name == "" {
		p.Name = "default-scheduler"
	}
	for _, point := range []string{"multiPoint", "score"} {
		if err := p.plugins(point, f.Plugins[point]); err != nil {
			return p, err
		}
	}
	for point, list := range f.Plugins {
		if point == "multiPoint" || point == "score" {
			continue
		}
		for _, d := range list.Disabled {
			// A plugin that only scores may be taken out of other points.
			if !slices.Contains([]string{"NodeResourcesBalancedAllocation", "ImageLocality"}, d.Name) && !(d.Name == "*" && point == "preScore") {
				return p, fmt.Errorf("plugins.%s.disabled: %q cannot be disabled", point, d.Name)
			}
		}
		for _, e := range list.Enabled {
			if p.Weights.score(e.Name) == nil && !slices.Contains(alwaysOn, e.Name) {
				return p, fmt.Errorf("plugins.%s.enabled: unknown plugin %q", point, e.Name)
			}
		}
	}
	for _, c := range f.PluginConfig {
		if err := p.arguments(c); err != nil {
			return p, fmt.Errorf("pluginConfig: %s: %w", c.Name, err)
		}
	}
	return p, nil
}

func (p *Profile) plugins(point string, list PluginsFile) error {
	usual := DefaultProfile("").Weights
	for _, d := range list.Disabled {
		if d.Name == "*" {
			p.Weights = Weights{}
			continue
		}
		w := p.Weights.score(d.Name)
		if w == nil || point == "multiPoint" && d.Name != "NodeResourcesBalancedAllocation" && d.Name != "ImageLocality" {
			return fmt.Errorf("plugins.%s.disabled: %q cannot be disabled", point, d.Name)
		}
		*w = 0
	}
	for _, e := range list.Enabled {
		w := p.Weights.score(e.Name)
		switch {
		case w == nil && slices.Contains(alwaysOn, e.Name):
		case w == nil:
			return fmt.Errorf("plugins.%s.enabled: unknown plugin %q", point, e.Name)
		case e.Weight > 0:
			*w = e.Weight
		default:
			*w = *usual.score(e.Name)
		}
	}
	return nil
}

func (p *Profile) arguments(c PluginConfigFile) error {
	switch c.Name {
	case "NodeResourcesFit":
		var a struct {
			ScoringStrategy *struct {
				Type      string `json:"type"`
				Resources []struct {
					Name   string `json:"name"`
					Weight int64  `json:"weight"`
				} `json:"resources"`
			} `json:"scoringStrategy"`
		}
		if err := json.Unmarshal(c.Args, &a); err != nil || a.ScoringStrategy == nil {
			return err
		}
		switch a.ScoringStrategy.Type {
		case "", "LeastAllocated":
		case "MostAllocated":
			p.Pack = true
		default:
			return fmt.Errorf("scoringStrategy.type: Unsupported value: %q: supported values: \"LeastAllocated\", \"MostAllocated\"", a.ScoringStrategy.Type)
		}
		if len(a.ScoringStrategy.Resources) == 0 {
			return nil
		}
		p.CPU, p.Memory = 0, 0
		for _, r := range a.ScoringStrategy.Resources {
			weight := max(r.Weight, 1)
			switch corev1.ResourceName(r.Name) {
			case corev1.ResourceCPU:
				p.CPU = weight
			case corev1.ResourceMemory:
				p.Memory = weight
			default:
				return fmt.Errorf("scoringStrategy.resources: Unsupported value: %q: supported values: \"cpu\", \"memory\"", r.Name)
			}
		}
	case "PodTopologySpread":
		var a struct {
			DefaultingType     string            `json:"defaultingType"`
			DefaultConstraints []json.RawMessage `json:"defaultConstraints"`
		}
		if err := json.Unmarshal(c.Args, &a); err != nil {
			return err
		}
		if len(a.DefaultConstraints) > 0 {
			return fmt.Errorf("defaultConstraints: Forbidden: only the system's or none")
		}
		p.NoSpread = a.DefaultingType == "List"
	case "InterPodAffinity", "DefaultPreemption", "VolumeBinding", "NodeResourcesBalancedAllocation", "NodeAffinity", "DynamicResources":
		// Their defaults are what is done; other values than these would not be.
		var a map[string]any
		if err := json.Unmarshal(c.Args, &a); err != nil {
			return err
		}
		for key, value := range a {
			if usual, ok := usualArguments[c.Name+"."+key]; key != "apiVersion" && key != "kind" && (!ok || fmt.Sprint(value) != usual) {
				return fmt.Errorf("%s: Unsupported value: %v", key, value)
			}
		}
	default:
		return fmt.Errorf("unknown plugin")
	}
	return nil
}

// usualArguments are the only values that some arguments may have.
var usualArguments = map[string]string{
	"InterPodAffinity.hardPodAffinityWeight": "1", "InterPodAffinity.ignorePreferredTermsOfExistingPods": "false",
	"DefaultPreemption.minCandidateNodesPercentage": "10", "DefaultPreemption.minCandidateNodesAbsolute": "100", "VolumeBinding.bindTimeoutSeconds": "600",
	"NodeResourcesBalancedAllocation.resources": "[map[name:cpu weight:1] map[name:memory weight:1]]",
}
