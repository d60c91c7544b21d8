// Package garbagecollector deletes what no owner holds any longer.
package garbagecollector
