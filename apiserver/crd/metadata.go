package crd

import "time"

// plain says that metadata is what reading it and writing it again would make
// of it: every key known, every value of its type, nothing empty. Nearly all
// is, and the round trip costs more than all else in decoding.
func plain(metadata any) bool {
	m, ok := metadata.(map[string]any)
	if !ok {
		return false
	}
	for key, v := range m {
		switch key {
		case "name", "generateName", "namespace", "uid", "resourceVersion":
			ok = text(v)
		case "creationTimestamp", "deletionTimestamp":
			ok = moment(v)
		case "generation", "deletionGracePeriodSeconds":
			n, isInt := v.(int64)
			ok = isInt && n != 0
		case "labels", "annotations":
			ok = texts(v)
		case "finalizers":
			ok = each(v, text)
		case "ownerReferences":
			ok = each(v, plainOwner)
		case "managedFields":
			ok = each(v, plainClaim)
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	return true
}

func text(v any) bool {
	s, ok := v.(string)
	return ok && s != ""
}

// moment is a time as times are written.
func moment(v any) bool {
	s, ok := v.(string)
	if !ok || len(s) != len("2006-01-02T15:04:05Z") || s[len(s)-1] != 'Z' {
		return false
	}
	_, err := time.Parse(time.RFC3339, s)
	return err == nil
}

func texts(v any) bool {
	m, ok := v.(map[string]any)
	if !ok || len(m) == 0 {
		return false
	}
	for _, v := range m {
		if _, ok := v.(string); !ok {
			return false
		}
	}
	return true
}

func each(v any, ok func(any) bool) bool {
	list, isList := v.([]any)
	if !isList || len(list) == 0 {
		return false
	}
	for _, v := range list {
		if !ok(v) {
			return false
		}
	}
	return true
}

func plainOwner(v any) bool {
	m, ok := v.(map[string]any)
	if !ok || m["apiVersion"] == nil || m["kind"] == nil || m["name"] == nil || m["uid"] == nil {
		return false
	}
	for key, v := range m {
		switch key {
		case "apiVersion", "kind", "name", "uid":
			if _, ok := v.(string); !ok {
				return false
			}
		case "controller", "blockOwnerDeletion":
			if _, ok := v.(bool); !ok {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func plainClaim(v any) bool {
	m, ok := v.(map[string]any)
	if !ok {
		return false
	}
	for key, v := range m {
		switch key {
		case "manager", "operation", "apiVersion", "fieldsType", "subresource":
			ok = text(v)
		case "time":
			ok = moment(v)
		case "fieldsV1":
			_, ok = v.(map[string]any)
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	return true
}
