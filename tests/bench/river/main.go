// Beside tests/bench/queue.c: how many jobs a second River (riverqueue.com) takes and ends on the same server. Its jobs do
// nothing, as those of queue.c.
//
//	go run . postgresql://.../database JOBS WORKERS
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

type nothing struct {
	Model   string `json:"model_name"`
	Dataset string `json:"dataset"`
	Seed    int    `json:"seed"`
}

func (nothing) Kind() string { return "nothing" }

var done atomic.Int64

type worker struct {
	river.WorkerDefaults[nothing]
}

func (worker) Work(context.Context, *river.Job[nothing]) error {
	done.Add(1)
	return nil
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	ctx := context.Background()
	jobs, err := strconv.Atoi(os.Args[2])
	check(err)
	workers, err := strconv.Atoi(os.Args[3])
	check(err)
	configuration, err := pgxpool.ParseConfig(os.Args[1])
	check(err)
	configuration.MaxConns = int32(workers) + 4
	pool, err := pgxpool.NewWithConfig(ctx, configuration)
	check(err)
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	check(err)
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	check(err)
	all := river.NewWorkers()
	river.AddWorker(all, &worker{})
	client, err := river.NewClient(driver, &river.Config{
		FetchCooldown: 2 * time.Millisecond,
		Logger:        slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Queues:        map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: workers}},
		Workers:       all,
	})
	check(err)

	began := time.Now()
	for first := 0; first < jobs; first += 500 {
		var rows []river.InsertManyParams
		for i := first; i < first+500 && i < jobs; i++ {
			rows = append(rows, river.InsertManyParams{Args: nothing{"/models/llama", "/data/rows.jsonl", i}})
		}
		_, err = client.InsertManyFast(ctx, rows)
		check(err)
	}
	fmt.Printf("River, insert by 500, 1 connection: %.0f jobs/s\n", float64(jobs)/time.Since(began).Seconds())

	began = time.Now()
	check(client.Start(ctx))
	// Ended means ended in PostgreSQL.
	for left := jobs; left > 0; time.Sleep(20 * time.Millisecond) {
		check(pool.QueryRow(ctx, "SELECT count(*) FROM river_job WHERE state <> 'completed'").Scan(&left))
	}
	fmt.Printf("River, take and end, %d workers: %.0f jobs/s\n", workers, float64(done.Load())/time.Since(began).Seconds())
	check(client.Stop(ctx))
}
