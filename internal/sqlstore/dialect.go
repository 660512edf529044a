package sqlstore

// statement numbers a prepared statement. The texts are a dialect's.
type statement int

const (
	stBegin statement = iota
	stCommit
	stRollback
	stSeq
	stSetSeq

	stQueueID
	stQueueNames
	stQueueInsert
	stQueuePause
	stQueuePaused
	stBindingInsert
	stBindings
	stBindingList
	stBindingKind

	stMessageInsert
	stMessageDelete
	stReadyInsert
	stReadyAny
	stReadyTake
	stReadyToClaim
	stReadyDelete
	stReadyCount
	stReadyPeek
	stReadyBatch
	stReadyBatchMessages
	stDelayedInsert
	stDelayedDue
	stDelayedPeek
	stDelayedDelete
	stDelayedNext
	stDelayedCount
	stDelayedBatch
	stDelayedBatchMessages

	stClaimDelete
	stClaimCount
	stClaimUnorphan
	stClaimsToReady
	stClaimsDelete

	stWorkerInsert
	stWorkerRenew
	stWorkerAlive
	stWorkerList
	stWorkerDelete

	stDeadInsert
	stDeadList
	stDeadListQueue
	stDeadRead
	stDeadDelete
	stDeadCount
	stLossAdd
	stLossRaise
	stLossRead
	stLossDelete

	stResultStore
	stResultFetch
	stResultDelete
	stResultSince
	stResultChanged
	stResultExpire
	stGroupSave
	stGroupRead
	stGroupDelete
	stGroupExpire
	stOnceClaim
	stOnceDone
	stOnceExpire
	stLossExpire

	stFanoutInsert
	stFanoutNumber
	stFanoutCount
	stFanoutNext
	stFanoutOldest
	stFanoutExpire
	stFanoutTrim

	numStatements
)

// dialect holds the text of every statement.
type dialect [numStatements]string

var sqliteDialect = &dialect{
	stBegin:    `BEGIN IMMEDIATE`,
	stCommit:   `COMMIT`,
	stRollback: `ROLLBACK`,
	stSeq:      `SELECT n FROM lovage_counter WHERE name = 'seq'`,
	stSetSeq:   `UPDATE lovage_counter SET n = ? WHERE name = 'seq'`,

	stQueueID:       `SELECT id FROM lovage_queue WHERE name = ?`,
	stQueueNames:    `SELECT id, name FROM lovage_queue ORDER BY name`,
	stQueueInsert:   `INSERT INTO lovage_queue (id, name) VALUES (?, ?)`,
	stQueuePause:    `UPDATE lovage_queue SET paused = ? WHERE id = ?`,
	stQueuePaused:   `SELECT id, name FROM lovage_queue WHERE paused <> 0 ORDER BY name`,
	stBindingInsert: `INSERT INTO lovage_binding (exchange, pattern, queue_id, kind) VALUES (?, ?, ?, ?) ON CONFLICT (exchange, pattern, queue_id) DO UPDATE SET kind = excluded.kind WHERE lovage_binding.kind <> excluded.kind`,
	stBindings:      `SELECT kind, pattern, queue_id FROM lovage_binding WHERE exchange = ?`,
	stBindingList:   `SELECT q.name, b.exchange, b.pattern FROM lovage_binding b JOIN lovage_queue q ON q.id = b.queue_id`,
	stBindingKind:   `SELECT kind FROM lovage_binding WHERE exchange = ? LIMIT 1`,

	stMessageInsert: `INSERT INTO lovage_message (id, headers, envelope, body) VALUES (?, ?, ?, ?)`,
	stMessageDelete: `DELETE FROM lovage_message WHERE id = ?`,

	stReadyInsert: `INSERT INTO lovage_ready (queue_id, rank, pos, id, flags) VALUES (?, ?, ?, ?, ?)`,
	stReadyAny:    `SELECT 1 FROM lovage_ready WHERE queue_id = ? LIMIT 1`,
	stReadyTake: `SELECT r.rank, r.pos, r.id, r.flags, m.headers, m.envelope, m.body
		FROM lovage_ready r JOIN lovage_message m ON m.id = r.id
		WHERE r.queue_id = ? ORDER BY r.rank, r.pos, r.id LIMIT ?`,
	stReadyToClaim: `INSERT INTO lovage_claim (worker_id, id, queue_id, rank, pos, flags)
		SELECT ?, id, queue_id, rank, pos, flags FROM lovage_ready WHERE queue_id = ? AND (rank, pos, id) <= (?, ?, ?)`,
	stReadyDelete: `DELETE FROM lovage_ready WHERE queue_id = ? AND (rank, pos, id) <= (?, ?, ?)`,
	stReadyCount:  `SELECT count(*) FROM lovage_ready WHERE queue_id = ?`,
	stReadyPeek: `SELECT r.rank, r.pos, r.id, r.flags, m.headers, m.envelope, m.body
		FROM lovage_ready r JOIN lovage_message m ON m.id = r.id
		WHERE r.queue_id = ? ORDER BY r.rank, r.pos, r.id LIMIT ? OFFSET ?`,
	stReadyBatch: `SELECT rank, pos, id FROM lovage_ready WHERE queue_id = ? ORDER BY rank, pos, id LIMIT ?`,
	stReadyBatchMessages: `DELETE FROM lovage_message WHERE id IN
		(SELECT id FROM lovage_ready WHERE queue_id = ? AND (rank, pos, id) <= (?, ?, ?))`,

	stDelayedPeek: `SELECT d.rank, d.due, d.id, d.flags, m.headers, m.envelope, m.body
		FROM lovage_delayed d JOIN lovage_message m ON m.id = d.id
		WHERE d.queue_id = ? ORDER BY d.due, d.id LIMIT ? OFFSET ?`,
	stDelayedInsert: `INSERT INTO lovage_delayed (queue_id, due, id, rank, flags) VALUES (?, ?, ?, ?, ?)`,
	stDelayedDue:    `SELECT due, id, rank, flags FROM lovage_delayed WHERE queue_id = ? AND due <= ? ORDER BY due, id LIMIT ?`,
	stDelayedDelete: `DELETE FROM lovage_delayed WHERE queue_id = ? AND (due, id) <= (?, ?)`,
	stDelayedNext:   `SELECT due FROM lovage_delayed WHERE queue_id = ? ORDER BY due LIMIT 1`,
	stDelayedCount:  `SELECT count(*) FROM lovage_delayed WHERE queue_id = ?`,
	stDelayedBatch:  `SELECT due, id FROM lovage_delayed WHERE queue_id = ? ORDER BY due, id LIMIT ?`,
	stDelayedBatchMessages: `DELETE FROM lovage_message WHERE id IN
		(SELECT id FROM lovage_delayed WHERE queue_id = ? AND (due, id) <= (?, ?))`,

	stClaimDelete:   `DELETE FROM lovage_claim WHERE worker_id = ? AND id = ?`,
	stClaimCount:    `SELECT queue_id, count(*) FROM lovage_claim GROUP BY queue_id`,
	stClaimUnorphan: `UPDATE lovage_claim SET flags = flags & ~2 WHERE worker_id = ? AND id = ?`,
	stClaimsToReady: `INSERT INTO lovage_ready (queue_id, rank, pos, id, flags)
		SELECT queue_id, rank, pos, id, flags | ? FROM lovage_claim WHERE worker_id = ?`,
	stClaimsDelete: `DELETE FROM lovage_claim WHERE worker_id = ?`,

	stWorkerInsert: `INSERT INTO lovage_worker (id, name, boot, lock, lease_until, started) VALUES (?, ?, ?, ?, ?, ?)`,
	stWorkerRenew:  `UPDATE lovage_worker SET lease_until = ? WHERE id = ?`,
	stWorkerAlive:  `SELECT 1 FROM lovage_worker WHERE id = ?`,
	stWorkerList:   `SELECT id, name, boot, lock, lease_until FROM lovage_worker`,
	stWorkerDelete: `DELETE FROM lovage_worker WHERE id = ?`,

	stDeadInsert:    `INSERT INTO lovage_dead (id, queue_id, rank, reason, died, losses, headers, envelope, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
	stDeadList:      `SELECT id, queue_id, rank, reason, died, losses, headers, envelope, body FROM lovage_dead WHERE id < ? ORDER BY id DESC LIMIT ?`,
	stDeadListQueue: `SELECT id, queue_id, rank, reason, died, losses, headers, envelope, body FROM lovage_dead WHERE queue_id = ? AND id < ? ORDER BY id DESC LIMIT ?`,
	stDeadRead:      `SELECT id, queue_id, rank, reason, died, losses, headers, envelope, body FROM lovage_dead WHERE id = ?`,
	stDeadDelete:    `DELETE FROM lovage_dead WHERE id = ?`,
	stDeadCount:     `SELECT queue_id, count(*) FROM lovage_dead GROUP BY queue_id`,
	stLossAdd: `INSERT INTO lovage_loss (task_id, n, expires) VALUES (?, 1, ?)
		ON CONFLICT (task_id) DO UPDATE SET n = CASE WHEN lovage_loss.expires <= ? THEN 1 ELSE lovage_loss.n + 1 END, expires = excluded.expires RETURNING n`,
	stLossRaise: `INSERT INTO lovage_loss (task_id, n, expires) VALUES (?, ?, ?)
		ON CONFLICT (task_id) DO UPDATE SET n = CASE WHEN lovage_loss.expires <= ? OR lovage_loss.n < excluded.n THEN excluded.n ELSE lovage_loss.n END, expires = excluded.expires RETURNING n`,
	stLossRead:   `SELECT n FROM lovage_loss WHERE task_id = ? AND expires > ?`,
	stLossDelete: `DELETE FROM lovage_loss WHERE task_id = ?`,

	stResultStore: `INSERT INTO lovage_result (seq, task_id, state, meta, group_id, expires) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (task_id) DO UPDATE SET seq = excluded.seq, state = excluded.state, meta = excluded.meta, group_id = excluded.group_id, expires = excluded.expires
		WHERE lovage_result.expires <= ? OR CASE lovage_result.state
			WHEN 'SUCCESS' THEN excluded.state = 'SUCCESS'
			WHEN 'ABORTED' THEN excluded.state IN ('SUCCESS', 'FAILURE', 'REVOKED', 'ABORTED')
			ELSE excluded.state <> 'ABORTED' OR lovage_result.state NOT IN ('FAILURE', 'REVOKED') END`,
	stResultFetch:   `SELECT state, meta, group_id, expires FROM lovage_result WHERE task_id = ?`,
	stResultDelete:  `DELETE FROM lovage_result WHERE task_id = ?`,
	stResultSince:   `SELECT seq, task_id FROM lovage_result WHERE seq > ? ORDER BY seq LIMIT ?`,
	stResultChanged: `SELECT seq FROM lovage_result WHERE task_id = ? AND seq > ?`,
	stResultExpire:  `DELETE FROM lovage_result WHERE seq IN (SELECT seq FROM lovage_result WHERE expires <= ? LIMIT ?)`,
	stGroupSave: `INSERT INTO lovage_group (id, doc, expires) VALUES (?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET doc = excluded.doc, expires = excluded.expires`,
	stGroupRead:   `SELECT doc, expires FROM lovage_group WHERE id = ?`,
	stGroupDelete: `DELETE FROM lovage_group WHERE id = ?`,
	stGroupExpire: `DELETE FROM lovage_group WHERE id IN (SELECT id FROM lovage_group WHERE expires <= ? LIMIT ?)`,
	stOnceClaim: `INSERT INTO lovage_once (id, owner, done, expires) VALUES (?, ?, 0, ?)
		ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, done = 0, expires = excluded.expires
		WHERE lovage_once.expires <= ? OR (lovage_once.done = 0 AND lovage_once.owner = excluded.owner)`,
	stOnceDone: `INSERT INTO lovage_once (id, owner, done, expires) VALUES (?, ?, 1, ?)
		ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, done = 1, expires = excluded.expires`,
	stOnceExpire: `DELETE FROM lovage_once WHERE id IN (SELECT id FROM lovage_once WHERE expires <= ? LIMIT ?)`,
	stLossExpire: `DELETE FROM lovage_loss WHERE task_id IN (SELECT task_id FROM lovage_loss WHERE expires <= ? LIMIT ?)`,

	stFanoutInsert: `INSERT INTO lovage_fanout (exchange, n, expires, headers, envelope, body) VALUES (?, ?, ?, ?, ?, ?)`,
	stFanoutNumber: `INSERT INTO lovage_counter (name, n) VALUES ('fanout ' || ?, ?) ON CONFLICT (name) DO UPDATE SET n = lovage_counter.n + excluded.n RETURNING n`,
	stFanoutCount:  `SELECT n FROM lovage_counter WHERE name = 'fanout ' || ?`,
	stFanoutNext:   `SELECT n, expires, headers, envelope, body FROM lovage_fanout WHERE exchange = ? AND n > ? ORDER BY n LIMIT ?`,
	stFanoutOldest: `SELECT n FROM lovage_fanout WHERE exchange = ? AND n > ? ORDER BY n LIMIT 1`,
	stFanoutExpire: `DELETE FROM lovage_fanout WHERE (exchange, n) IN (SELECT exchange, n FROM lovage_fanout WHERE expires <= ? LIMIT ?)`,
	stFanoutTrim:   `DELETE FROM lovage_fanout WHERE exchange = ? AND n <= ?`,
}
